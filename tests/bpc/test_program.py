"""compile: two views of one masked model, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from bpc.program import Program, compile
from bpc.spec import SpecError
from passes.driver import shrink
from passes.ir.info import TraceError
from passes.structure.roles import find_roles

SPEC: dict[str, Any] = {
    "rules": [
        {"roles": "attention.*", "block": [8, 8]},
        {"roles": "ffn.*", "block": [1, "in_features"], "paired": True},
    ]
}


def bert(**options: Any) -> nn.Module:
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **options
    )
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=50, n_embd=32, n_layer=1, n_head=4, use_cache=False, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        )
    )


def llama() -> nn.Module:
    config = LlamaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, use_cache=False)
    config.num_key_value_heads, config.intermediate_size = 2, 64
    return LlamaForCausalLM(config)


class Tied(nn.Module):
    """up's weight is read under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.twin = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 16)
        self.twin.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(torch.relu(self.up(x)))
        return x + self.down(torch.relu(self.twin(x)))


def ids() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(3, 40, (2, 9))}


def scattered(model: nn.Module, spec: Any = SPEC, inputs: Any = None) -> Program:
    """A program half-way through its schedule, about half of its blocks pruned, every weight and bias moved."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    program = compile(model, spec, inputs if inputs is not None else ids())
    for scores in program.score_parameters():
        nn.init.normal_(scores, -2.5, 1.0)
    program.set_progress(0.5)
    return program


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("build", [bert, gpt2, llama])
def test_both_views_agree_in_outputs_and_gradients(build: Any, training: bool) -> None:
    program, inputs = scattered(build()), ids()
    assert 0.2 < program.density() < 0.8
    results = []
    for view in (program.module, program.graph_module):
        view.train(training)
        program.module.zero_grad()
        output = first(view(**inputs))
        (output.square().mean() + program.regularization()).backward()
        results.append(
            (output.detach(), {n: p.grad for n, p in program.module.named_parameters() if p.grad is not None})
        )
    (output, gradients), (graph_output, graph_gradients) = results
    torch.testing.assert_close(graph_output, output, rtol=0, atol=0)
    assert gradients.keys() == graph_gradients.keys()
    assert any(name.startswith("block_masks.") for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(graph_gradients[name], gradient, rtol=1e-5, atol=1e-7)  # sums in another order


def test_a_step_on_one_view_is_a_step_on_both() -> None:
    program, inputs = scattered(bert()), ids()
    before = first(program.graph_module.eval()(**inputs))
    program.module.train()
    first(program.module(**inputs)).square().mean().backward()
    torch.optim.SGD(program.module.parameters(), lr=1.0).step()
    after = first(program.graph_module.eval()(**inputs))
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, first(program.module.eval()(**inputs)), rtol=0, atol=0)


def test_evaluation_is_the_model_with_masks_multiplied_in() -> None:
    program, inputs = scattered(bert()), ids()
    program.module.eval()
    masked = first(program.module(**inputs))
    masks = program.masks()
    plain = program.detach()
    assert first(plain(**inputs)).sub(masked).abs().max() > 1e-3
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name in masks:
                parameter.mul_(masks[name])
    torch.testing.assert_close(first(plain(**inputs)), masked, rtol=0, atol=0)


def test_masks_have_their_parameters_shapes_and_follow_the_plan() -> None:
    program = scattered(bert())
    parameters = dict(program.module.named_parameters())
    masks = program.masks()
    assert all(mask.dtype is torch.bool and mask.shape == parameters[name].shape for name, mask in masks.items())
    up, down, bias = (
        masks[f"bert.encoder.layer.0.{n}"]
        for n in ("intermediate.dense.weight", "output.dense.weight", "intermediate.dense.bias")
    )
    assert torch.equal(up[:, 0], down[0])
    assert torch.equal(up.all(1), bias)
    assert torch.equal(up.any(1), bias)
    assert 0 < bias.sum() < len(bias)


def test_tied_weights_are_masked_under_every_name() -> None:
    program = scattered(Tied(), {"rules": [{"roles": "ffn.up", "block": [4, 4]}]}, torch.randn(3, 8))
    x = torch.randn(5, 8)
    torch.testing.assert_close(program.module.eval()(x), program.graph_module.eval()(x), rtol=0, atol=0)
    assert torch.equal(program.module.up.weight, program.module.twin.weight)  # type: ignore[union-attr]
    assert (program.module.up.weight == 0).any()  # type: ignore[union-attr]
    masks = program.masks()
    assert torch.equal(masks["up.weight"], masks["twin.weight"])
    small = shrink(program.plain_graph(), masks).graph_module
    torch.testing.assert_close(small(x), program.module(x), rtol=1e-5, atol=1e-5)


def test_roles_are_still_readable_with_masks_inserted() -> None:
    program = scattered(bert())
    assert [(r.weight, r.role, r.bias) for r in find_roles(program.graph_module)] == [
        (r.weight, r.role, r.bias) for r in program.roles
    ]


def test_state_dict_names_stay_and_the_scores_join_them() -> None:
    model = bert()
    names = set(model.state_dict())
    compile(model, SPEC, ids())
    added = set(model.state_dict()) - names
    assert names <= set(model.state_dict())
    assert all(name.startswith("block_masks.") for name in added)


def test_loading_weights_in_place_keeps_the_views_together() -> None:
    program, inputs = scattered(bert()), ids()
    program.module.load_state_dict(scattered(bert(num_labels=2)).module.state_dict())
    torch.testing.assert_close(
        first(program.graph_module.eval()(**inputs)), first(program.module.eval()(**inputs)), rtol=0, atol=0
    )


def test_the_plain_graph_has_no_masks_and_the_current_weights() -> None:
    program, inputs = scattered(bert()), ids()
    with torch.no_grad():
        next(program.module.parameters()).add_(1.0)
    plain = program.plain_graph()
    assert not any(node.op == "call_module" for node in plain.graph.nodes)
    expected = first(program.detach().eval()(**inputs))
    torch.testing.assert_close(first(plain(**inputs)), expected, rtol=0, atol=0)


def test_the_masked_copy_computes_what_the_program_does() -> None:
    program, inputs = scattered(bert()), ids()
    expected = first(program.module.eval()(**inputs))
    copied = program.masked_model()
    assert "block_masks" not in dict(copied.named_children())
    torch.testing.assert_close(first(copied.eval()(**inputs)), expected, rtol=0, atol=0)
    torch.testing.assert_close(first(program.module(**inputs)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("build", [bert, gpt2, llama])
def test_the_plain_graph_and_the_masks_shrink_exactly(build: Any) -> None:
    program, inputs = scattered(build()), ids()
    expected = first(program.module.eval()(**inputs))
    small = shrink(program.plain_graph(), program.masks()).graph_module
    torch.testing.assert_close(first(small(**inputs)), expected, rtol=1e-5, atol=1e-5)


def test_a_replaced_parameter_is_noticed() -> None:
    program = scattered(bert())
    program.module.classifier.bias = nn.Parameter(torch.zeros(2))  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match=r"'classifier\.bias' of the model was replaced after"):
        program.plain_graph()


def test_compiling_twice_is_refused_until_detached() -> None:
    model = bert()
    program = compile(model, SPEC, ids())
    with pytest.raises(ValueError, match="has block masks already"):
        compile(model, SPEC, ids())
    compile(program.detach(), SPEC, ids())


def test_shrinking_leaves_a_detached_model_detached() -> None:
    program = scattered(bert())
    program.detach()
    program.shrink()
    compile(program.module, SPEC, ids())


@pytest.mark.parametrize("model", [None, "bert-base"])
def test_only_modules_are_compiled(model: Any) -> None:
    with pytest.raises(TypeError, match="takes a loaded model"):
        compile(model, SPEC)


def test_inputs_that_were_made_up_are_shown_where_they_do_not_fit() -> None:
    class Compared(BertModel):
        def forward(self, input_ids: Any = None, attention_mask: Any = None, other_ids: Any = None) -> Any:
            assert other_ids is not None
            return super().forward(input_ids, attention_mask)

    config = BertConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=16, vocab_size=60)
    with pytest.raises(TraceError, match=r"made up \(input_ids \(\d, \d\).*pass example_inputs"):
        compile(Compared(config), "heads")


def test_a_spec_that_does_not_fit_leaves_the_model_alone() -> None:
    model = bert()
    with pytest.raises(SpecError, match="blocks of 5x8"):
        compile(model, {"rules": [{"roles": "attention.*", "block": [5, 8]}]}, ids())
    assert "block_masks" not in dict(model.named_children())
    compile(model, SPEC, ids())


@pytest.mark.parametrize("build", [bert, gpt2, llama])
def test_shrink_gives_a_dense_model_in_two_views(build: Any) -> None:
    program, inputs = scattered(build()), ids()
    expected = first(program.module.eval()(**inputs))
    dense = program.shrink()
    for view in (dense.graph_module, dense.module):
        torch.testing.assert_close(first(view(**inputs)), expected, rtol=1e-5, atol=1e-5)
    trained = sum(p.numel() for name, p in program.module.named_parameters() if not name.startswith("block_masks."))
    assert sum(p.numel() for p in dense.module.parameters()) < trained
    torch.testing.assert_close(first(program.module(**inputs)), expected, rtol=0, atol=0)  # the program is as it was


def test_a_model_with_pruning_hooks_is_compiled_and_shrunk() -> None:
    """As a training loop leaves it: the hooked weight is a tensor of the last forward's graph."""
    torch.manual_seed(0)
    model, inputs = bert().eval(), ids()
    up = model.bert.encoder.layer[0].intermediate.dense
    prune.ln_structured(up, "weight", amount=0.5, n=2, dim=0)
    prune.custom_from_mask(up, "bias", (up.weight_mask.sum(1) > 0).float())
    first(model(**inputs)).sum().backward()
    expected = first(model(**inputs))
    program = compile(model, {"rules": [{"roles": "attention.*", "block": [8, 8]}]}, inputs)
    dense = program.shrink()
    torch.testing.assert_close(first(dense(**inputs)), expected)
    assert dense.report is not None
    assert dense.report.parameters_after <= dense.report.parameters_before - 32 * (32 + 1 + 32)
