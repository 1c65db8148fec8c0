"""Distillation of hidden states: the formula, which layers are compared, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    default_data_collator,
)

import bpc
from bpc.spec import PRESETS
from bpc.train import Trainer, ask_once
from bpc.train.hidden import hidden_error, hidden_states_of, matched
from tests.bpc.train.test_proportion import Gradients

Make = Callable[..., Any]
Rows = list[dict[str, Any]]
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 16,
}  # fmt: skip
LENGTHS = (6, 2, 4, 1, 5, 6, 3, 2)


def encoder(seed: int, layers: int = 2, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**{**SMALL, **dropout, "num_hidden_layers": layers, **changes})
    return BertForSequenceClassification(config).eval()


def decoder(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2)).eval()


def seq2seq(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 24, "num_layers": 2, "vocab_size": 40}
    return T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=0.0, decoder_start_token_id=0)).eval()


def rows(make: Make) -> Rows:
    """Padded rows of other lengths; a language model's labels lie at its real tokens."""
    generator = torch.Generator().manual_seed(0)
    found: Rows = []
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(1, 40, (6,), generator=generator)
        real = torch.arange(6) < length
        labels = i % 2 if make is encoder else ids.masked_fill(~real, -100).tolist()
        found.append({"input_ids": (ids * real).tolist(), "attention_mask": real.long().tolist(), "labels": labels})
    return found


def row_error(mine: Tensor, known: Tensor, real: Tensor) -> Tensor:
    """Row by row, position by position: the definition, without masks."""
    found = []
    for s, t, keep in zip(mine, known, real, strict=True):
        difference = sum((t[i] - s[i]).pow(2).sum() for i in range(len(keep)) if keep[i])
        found.append(difference / sum(t[i].pow(2).sum() for i in range(len(keep)) if keep[i]))
    return torch.stack(found).mean()


def test_the_error_is_that_of_each_layer_at_real_positions() -> None:
    mine, known = ([torch.randn(2, 3, 4) for _ in range(3)] for _ in range(2))
    real = torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = hidden_error({"hidden_states": mine}, {"hidden_states": known}, {"attention_mask": real})
    expected = (row_error(mine[1], known[1], real) + row_error(mine[2], known[2], real)) / 2
    torch.testing.assert_close(found, expected)
    assert hidden_error({"hidden_states": known}, {"hidden_states": known}, {"attention_mask": real}) == 0


def test_layers_are_spread_evenly_up_to_the_last() -> None:
    assert matched(6, 6) == [(i, i) for i in range(1, 7)]
    assert matched(2, 6) == [(1, 3), (2, 6)]
    assert matched(4, 6) == [(1, 2), (2, 3), (3, 4), (4, 6)]
    assert matched(6, 3) == [(2, 1), (4, 2), (6, 3)]


def test_a_layer_that_gives_back_what_it_was_given_is_not_compared() -> None:
    embedded, first, second = (torch.randn(2, 3, 4) for _ in range(3))
    known = [torch.randn(2, 3, 4) for _ in range(4)]
    found = hidden_error(
        {"hidden_states": [embedded, first, first.clone(), second]}, {"hidden_states": known}, {}
    )  # the second layer is dead
    real = torch.ones(2, 3)
    torch.testing.assert_close(found, (row_error(first, known[1], real) + row_error(second, known[3], real)) / 2)


def test_a_dead_layer_of_a_model_is_idle() -> None:
    """What pruning leaves of a layer whose attention and feed-forward network both died."""
    model = decoder(0)
    inner: Any = model.get_submodule("model.layers.0")
    with torch.no_grad():
        inner.self_attn.o_proj.weight.zero_()
        inner.mlp.down_proj.weight.zero_()
    states = hidden_states_of(model(torch.ones(1, 3, dtype=torch.long), output_hidden_states=True), "model")
    other = {"hidden_states": [state + 1 for state in states["hidden_states"]]}
    alone = {"hidden_states": [states["hidden_states"][i] for i in (1, 2)]}
    expected = hidden_error(alone, {"hidden_states": [other["hidden_states"][i] for i in (1, 2)]}, {})
    torch.testing.assert_close(hidden_error(states, other, {}), expected)


def whole_batch(make: Make, model: nn.Module, teacher: nn.Module, data: Rows, weight: float) -> Tensor:
    """(1 − w)·task + w·T²·KL + weight·H of all rows at once, T = 2, w = 0.9, from what transformers returns."""
    batch = default_data_collator(data)
    real, labels = batch["attention_mask"], batch["labels"]
    mine = model(**batch, output_hidden_states=True)
    with torch.no_grad():
        known = teacher(**batch, output_hidden_states=True)
    kept = labels != -100
    logits, other = mine.logits, known.logits
    if make is decoder:
        logits, other, labels, kept = logits[:, :-1], other[:, :-1], labels[:, 1:], kept[:, 1:]
    logits, other, labels = logits[kept], other[kept], labels[kept]
    p, q = (torch.log_softmax(values / 2, -1) for values in (other, logits))
    loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * 4 * (p.exp() * (p - q)).sum(-1).mean()
    kinds = ["encoder_hidden_states", "decoder_hidden_states"] if make is seq2seq else ["hidden_states"]
    errors = [
        row_error(s, t, real) for kind in kinds for s, t in zip(mine[kind][1:], known[kind][1:], strict=True)
    ]  # a decoder's labels are its real positions, here those of the inputs
    return loss + weight * torch.stack(errors).mean()


def trained(make: Make, data: Rows, args: Any, model: nn.Module, **options: Any) -> tuple[dict[str, Tensor], float]:
    seen = Gradients(model)
    options = {"model": model, "teacher": make(1), "hidden_weight": 3.0, "train_dataset": data} | options
    trainer = Trainer(args=args, data_collator=default_data_collator, callbacks=[seen], **options)
    trainer.train()
    return seen.found, trainer.state.log_history[0]["loss"]


@pytest.mark.parametrize("micro", [8, 2])
@pytest.mark.parametrize("make", [encoder, decoder, seq2seq])
def test_a_step_holds_the_mean_over_all_rows_however_it_is_cut(make: Make, micro: int, arguments: Make) -> None:
    args = arguments(
        max_steps=1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=8 // micro,
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
    )
    found, logged = trained(make, rows(make), args, make(0))
    model = make(0).train()
    loss = whole_batch(make, model, make(1), rows(make), 3.0)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    assert logged == pytest.approx(float(loss.detach()), rel=1e-4)


def test_the_spec_sets_the_weight_of_a_program(arguments: Make) -> None:
    spec = PRESETS["struct"].model_dump(mode="json") | {"distillation": {"weight": 0.9, "hidden": 3.0}}
    program = bpc.compile(encoder(0), spec)
    program.set_progress(0.0)
    data, teacher = rows(encoder), encoder(1)
    trainer = Trainer(program=program, teacher=teacher, args=arguments())
    found = trainer.compute_loss(program.module.train(), default_data_collator(data))
    torch.testing.assert_close(found, whole_batch(encoder, program.module, teacher, data, 3.0))


def test_a_compiled_model_learns_its_teachers_states(arguments: Make) -> None:
    teacher, data = encoder(1), rows(encoder)
    dense = bpc.prune_once(encoder(0), [default_data_collator(data)], bpc.Target(density=0.5), progress=False)
    small = dense.module
    batch = {name: value for name, value in default_data_collator(data).items() if name != "labels"}

    def error() -> float:
        with torch.no_grad():
            states = [hidden_states_of(m.eval()(**batch, output_hidden_states=True), "model") for m in (small, teacher)]
        return float(hidden_error(*states, batch))

    before = error()
    trained(encoder, data, arguments(max_steps=20, learning_rate=3e-3), small.train())
    assert 0 < error() < 0.7 * before


def test_a_teacher_of_another_depth_teaches_and_of_another_width_is_refused(arguments: Make) -> None:
    args = arguments(max_steps=1)
    found, _ = trained(encoder, rows(encoder), args, encoder(0), teacher=encoder(1, layers=4))
    assert found
    with pytest.raises(ValueError, match=r"\(8, 6, 16\) in the model and \(8, 6, 32\) in the teacher"):
        trained(encoder, rows(encoder), args, encoder(0), teacher=encoder(1, hidden_size=32))


def test_answers_that_were_kept_hold_no_states(arguments: Make, tmp_path: Any) -> None:
    taught = ask_once(encoder(1), rows(encoder), default_data_collator, tmp_path / "t.safetensors", key="k")
    with pytest.raises(ValueError, match="of which the data hold none: give teacher="):
        trained(encoder, rows(encoder), arguments(max_steps=1), encoder(0), teacher=None, train_dataset=taught)
    trained(encoder, rows(encoder), arguments(max_steps=1), encoder(0), train_dataset=taught)  # logits of the data


class Plain(nn.Module):
    """A model that knows nothing of transformers' flags."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x)}


def test_models_without_hidden_states_are_refused(arguments: Make) -> None:
    with pytest.raises(ValueError, match=r"the forward of the model \(Plain\) takes no output_hidden_states="):
        Trainer(model=Plain(), teacher=Plain(), hidden_weight=1.0, args=arguments())
    with pytest.raises(ValueError, match="what the teacher returned"):
        hidden_states_of({"logits": torch.zeros(1)}, "teacher")
    with pytest.raises(ValueError, match="the teacher has decoder_hidden_states, the model hidden_states"):
        hidden_error({"hidden_states": []}, {"decoder_hidden_states": []}, {})
