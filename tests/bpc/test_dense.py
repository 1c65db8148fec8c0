"""The dense model's two views, and its directory."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

import bpc
import passes
from bpc.dense import DenseModel, LoadError, is_dense_directory, load
from bpc.directory import PLAN_FILE
from passes.certificate import Certificate, digests
from passes.plan.errors import ModuleViewError
from passes.plan.plan import ModuleView
from passes.report import count_parameters

TINY = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 60}
IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))


def _spread(model: nn.Module) -> None:
    """Weights and biases large enough that every part moves the output."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=2, **TINY)).eval()
    _spread(model)
    with torch.no_grad():
        for layer, heads, dims in ((0, (1, 3), 30), (1, (0, 1, 2, 3), 48)):  # layer 1 dies altogether
            block = model.bert.encoder.layer[layer]
            for head in heads:
                rows = slice(8 * head, 8 * head + 8)
                block.attention.self.value.weight[rows] = 0  # a dead head with a bias: folded, not dropped
            block.intermediate.dense.weight[:dims] = 0
    return model


@pytest.fixture(scope="module")
def dense(bert: BertForSequenceClassification) -> DenseModel:
    graph = passes.trace(bert, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    return DenseModel.from_shrink(passes.shrink(graph), bert)


def test_both_views_compute_what_the_masked_model_does(dense: DenseModel, bert: BertForSequenceClassification) -> None:
    mask = torch.ones_like(IDS)
    mask[1, 4:] = 0
    with torch.no_grad():
        expected = bert(IDS, attention_mask=mask).logits
        for view in (dense.graph_module, dense.module):
            torch.testing.assert_close(view(input_ids=IDS, attention_mask=mask).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_views_have_the_sizes_the_theory_says(dense: DenseModel) -> None:
    first, second = dense.module.bert.encoder.layer
    assert first.attention.self.query.out_features == 2 * 8
    assert first.attention.self.value.out_features == 2 * 8
    assert first.intermediate.dense.out_features == 18
    assert second.attention.self.value.out_features == 1  # one zero head of one dim, for the forward
    names = {str(n.target) for n in dense.graph_module.graph.nodes if n.op == "get_attr"}
    assert not any("layer.1.attention.self" in n or "layer.1.intermediate" in n for n in names)
    attention = [n for n in dense.graph_module.graph.nodes if "scaled_dot_product" in n.name]
    assert len(attention) == 1


def test_the_module_trains(dense: DenseModel) -> None:
    output = dense.module(input_ids=IDS, labels=torch.tensor([0, 1]))
    output.loss.backward()
    weight = dense.module.bert.encoder.layer[0].attention.self.query.weight
    assert weight.grad is not None
    assert bool(weight.grad.abs().sum() > 0)


def test_the_original_is_untouched(dense: DenseModel, bert: BertForSequenceClassification) -> None:
    assert dense.module is not bert
    assert bert.bert.encoder.layer[0].attention.self.query.out_features == 32
    assert bert.bert.encoder.layer[0].attention.self.query.weight.shape == (32, 32)


def test_a_directory_loads_again(dense: DenseModel, tmp_path: Path) -> None:
    dense.save_pretrained(tmp_path / "small")
    assert is_dense_directory(tmp_path / "small")
    again = bpc.load(tmp_path / "small")
    with torch.no_grad():
        expected = dense.module(input_ids=IDS).logits
        assert torch.equal(again.module(input_ids=IDS).logits, expected)
        whole = again(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)
    assert list(tmp_path.iterdir()) == [tmp_path / "small"]  # nothing left over


def test_a_model_loaded_for_inference_only_runs(dense: DenseModel, tmp_path: Path) -> None:
    dense.save_pretrained(tmp_path / "small")
    with torch.inference_mode():
        again = bpc.load(tmp_path / "small")
        for _ in range(2):
            actual = again(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        torch.testing.assert_close(actual, again.module(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)


def test_a_small_model_shrinks_again_and_loads_again(dense: DenseModel, tmp_path: Path) -> None:
    """Its directory holds every plan: the config only knows the sizes before the first."""
    dense.save_pretrained(tmp_path / "once")
    module = bpc.load(tmp_path / "once").module
    with torch.no_grad():
        module.bert.encoder.layer[0].intermediate.dense.weight[:6] = 0
        module.bert.encoder.layer[0].intermediate.dense.bias[:6] = 0
        expected = module(input_ids=IDS).logits
    graph = passes.trace(module, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    DenseModel.from_shrink(passes.shrink(graph), module).save_pretrained(tmp_path / "twice")
    again = bpc.load(tmp_path / "twice").module
    assert again.bert.encoder.layer[0].intermediate.dense.out_features == 12
    torch.testing.assert_close(again(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_graph_follows_a_module_that_was_trained(dense: DenseModel, tmp_path: Path) -> None:
    """Otherwise what is exported after fine-tuning would have the weights from before it."""
    dense.save_pretrained(tmp_path)
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    for small in (DenseModel.from_shrink(*_shrunk_classifier()), bpc.load(tmp_path)):
        untouched = small.graph_module
        assert small.module is not None
        assert small.graph_module is untouched  # nothing changed: nothing is traced again
        optimizer = torch.optim.SGD(small.module.parameters(), lr=0.1)
        small.module(**given, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        with torch.no_grad():
            expected = small.module(**given).logits
            assert (untouched(**given).logits - expected).abs().max() > 1e-3
        torch.testing.assert_close(small(**given).logits, expected, atol=1e-5, rtol=1e-5)


def _shrunk_classifier() -> tuple[passes.ShrinkResult, nn.Module]:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=1, **TINY)).eval()
    _spread(model)
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[:8] = 0
    return passes.shrink(passes.trace(model, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})), model


def test_a_directory_keeps_the_dtype(dense: DenseModel, tmp_path: Path) -> None:
    dense.save_pretrained(tmp_path)
    small = bpc.load(tmp_path)
    small.module.to(torch.bfloat16)
    small.save_pretrained(tmp_path)
    again = bpc.load(tmp_path)
    assert {p.dtype for p in again.module.parameters()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert again.graph_module(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.dtype == torch.bfloat16


def test_a_file_is_no_place_to_save_in(dense: DenseModel, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(NotADirectoryError, match="taken is a file; give a directory"):
        dense.save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_inputs_that_the_example_lacked_go_to_the_module(dense: DenseModel, bert: nn.Module) -> None:
    """Whatever a tokenizer gives: a value that matters is never dropped."""
    types = torch.ones_like(IDS)
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    dense.module.train()  # what runs is in eval mode all the same
    with torch.no_grad():
        for more in ({"token_type_ids": types}, {"labels": torch.tensor([0, 1])}):
            expected = bert(**given, **more)
            actual = dense(**given, **more)
            assert actual.keys() == expected.keys()
            torch.testing.assert_close(actual.logits, expected.logits, atol=1e-5, rtol=1e-5)
        assert not dense(**given, token_type_ids=types).logits.allclose(dense(**given).logits, atol=1e-3)
        torch.testing.assert_close(dense(input_ids=IDS).logits, bert(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)
    assert dense.module.training
    assert not dense.eval().module.training


def test_inputs_that_neither_view_takes_are_named(dense: DenseModel) -> None:
    with pytest.raises(TypeError, match=r"'token_types'.*takes input_ids, attention_mask.*module does not take"):
        dense(input_ids=IDS, attention_mask=torch.ones_like(IDS), token_types=IDS)


def test_a_dense_model_is_copied_and_pickled(dense: DenseModel) -> None:
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    expected = dense(**given).logits
    for again in (copy.deepcopy(dense), pickle.loads(pickle.dumps(dense))):
        assert again.module is not dense.module
        assert (again.plan, again.module_plan, str(again.report)) == (dense.plan, dense.module_plan, str(dense.report))
        assert again.certificate == dense.certificate
        assert again.certificate is not None
        torch.testing.assert_close(again(**given).logits, expected, atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            again.module.classifier.bias += 1
        torch.testing.assert_close(again(**given).logits, expected + 1, atol=1e-5, rtol=1e-5)
        assert copy.deepcopy(again).certificate is None
    assert dense(**given).logits.equal(expected)


def test_a_cast_dense_model_keeps_its_config_and_casts_both_views(dense: DenseModel) -> None:
    again = copy.deepcopy(dense)
    assert again.config is again.module.config
    assert again.to(torch.bfloat16) is again
    assert {p.dtype for p in again.module.parameters()} == {torch.bfloat16}
    assert again(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.dtype is torch.bfloat16
    assert next(again.half().module.parameters()).dtype is torch.float16


@pytest.mark.parametrize("damage", ["missing", "truncated", "version", "weights"])
def test_a_broken_directory_is_refused_with_the_file_named(dense: DenseModel, tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "small"
    dense.save_pretrained(directory)
    plan = directory / PLAN_FILE
    if damage == "missing":
        plan.unlink()
    elif damage == "truncated":
        plan.write_text(plan.read_text()[:100])
    elif damage == "version":
        plan.write_text(json.dumps({**json.loads(plan.read_text()), "format": 99}))
    else:
        (directory / "model.safetensors").write_bytes(b"no")
    with pytest.raises(LoadError, match=r"bpc\.json|small"):
        load(directory)


def test_a_model_without_config_says_what_to_do(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[0].weight[:5] = 0
    graph = passes.trace(model, torch.randn(3, 8))
    dense = DenseModel.from_shrink(passes.shrink(graph), model)
    assert dense.module[0].out_features == 11
    with pytest.raises(TypeError, match="no transformers config"):
        dense.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def shared_bias() -> tuple[DenseModel, nn.Module, dict[str, Any]]:
    """T5 computes its position bias once, for all layers: heads go that no layer needs, and FFN dims."""
    config = T5Config(num_layers=2, num_decoder_layers=1, d_model=32, d_kv=8, d_ff=40, num_heads=4, vocab_size=60)
    model = T5ForConditionalGeneration(config).eval()
    _spread(model)
    with torch.no_grad():
        model.encoder.block[0].layer[0].SelfAttention.v.weight[:16] = 0
        model.encoder.block[1].layer[0].SelfAttention.v.weight[:8] = 0
        model.encoder.block[1].layer[1].DenseReluDense.wi.weight[:12] = 0
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS, "use_cache": False}
    return DenseModel.from_shrink(passes.shrink(passes.trace(model, inputs)), model), model, inputs


Coarse = tuple[DenseModel, nn.Module, dict[str, Any]]


def test_one_head_count_for_all_layers_is_what_the_forward_sees(shared_bias: Coarse) -> None:
    dense, model, inputs = shared_bias
    values = dense.module.encoder.block[0].layer[0].SelfAttention.v
    assert (values.out_features, values.weight.shape) == (24, (16, 32))
    assert dense.module.encoder.block[1].layer[1].DenseReluDense.wi.out_features == 28
    assert dense.module_granularity == "even"
    assert _value_shape(dense) == (16, 32)
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(dense.module(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(dense(**inputs).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_coarser_module_is_told_apart_from_the_graph(shared_bias: Coarse) -> None:
    dense, _, _ = shared_bias
    plan = dense.plan
    size = sum(p.numel() for p in dense.module.parameters())
    assert size == sum(p.numel() for p in dense.graph_module.parameters())
    assert "in the graph view" in str(dense.report)
    said = f'module view: {size:,} parameters. Attention is computed as if cut by "even", with zeros where layers hold'
    assert dense.describe_module().startswith(said)
    assert "Its forward fixes a head count" in dense.describe_module()
    assert dense.plan is plan
    assert not dense.plan.spreads
    assert dense.module_plan.small_shape(VALUE, (32, 32)) == (16, 32)
    assert [spread.size for spread in dense.module_plan.spreads if spread.weight == VALUE] == [24]


def test_a_directory_keeps_the_cuts_of_the_graph(shared_bias: Coarse, tmp_path: Path) -> None:
    """Where the module cannot follow: what it keeps in zeros is not in the graph made of it, trained or not."""
    dense, _, inputs = shared_bias
    dense.save_pretrained(tmp_path / "small")
    again = bpc.load(tmp_path / "small")
    assert (again.plan, again.module_plan) == (dense.plan, dense.module_plan)
    assert (again.module_granularity, again.describe_module()) == ("even", dense.describe_module())
    assert dense.report is not None
    for _ in range(2):
        assert count_parameters(again.graph_module) == dense.report.parameters_after
        assert _value_shape(again) == (16, 32)
        with torch.no_grad():
            expected = again.module(**inputs).logits
            torch.testing.assert_close(again(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        again.module(**inputs, labels=IDS).loss.backward()
        torch.optim.SGD(again.module.parameters(), lr=0.1).step()
    again.save_pretrained(tmp_path / "trained")
    assert count_parameters(bpc.load(tmp_path / "trained").graph_module) == dense.report.parameters_after


def test_zeros_that_were_asked_for_stay_in_the_graph_of_a_directory(bert: nn.Module, tmp_path: Path) -> None:
    graph = passes.trace(bert, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    rounded = DenseModel.from_shrink(passes.shrink(graph, multiple=8), bert)
    rounded.save_pretrained(tmp_path)
    assert rounded.report is not None
    assert count_parameters(bpc.load(tmp_path).graph_module) == rounded.report.parameters_after


VALUE = "encoder.block.0.layer.0.SelfAttention.v.weight"


def _value_shape(dense: DenseModel) -> tuple[int, ...]:
    values = {n.target: n for n in dense.graph_module.graph.nodes if n.op == "get_attr"}
    return tuple(values[VALUE].meta["val"].shape)


def test_a_directory_has_the_certificate_of_its_module(dense: DenseModel, tmp_path: Path) -> None:
    dense.save_pretrained(tmp_path / "once")
    written = Certificate.from_json((tmp_path / "once" / "certificate.json").read_text())
    assert written.view == "module"
    assert written.plan == json.loads(dense.module_plan.to_json())
    assert written.small == digests(dense.module.state_dict().items())
    assert dense.certificate is not None
    assert written.masked == dense.certificate.masked
    again = bpc.load(tmp_path / "once")
    again.save_pretrained(tmp_path / "twice")
    assert (tmp_path / "twice" / "certificate.json").read_text() == written.to_json()


def test_trained_or_cast_weights_have_no_certificate(dense: DenseModel, tmp_path: Path) -> None:
    dense.save_pretrained(tmp_path)
    trained, cast = bpc.load(tmp_path), bpc.load(tmp_path)
    with torch.no_grad():
        trained.module.classifier.bias += 1
    cast.module.to(torch.bfloat16)
    for changed in (trained, cast):
        assert changed.certificate is None
        changed.save_pretrained(tmp_path)
        assert not (tmp_path / "certificate.json").exists()  # not the old one either
        dense.save_pretrained(tmp_path)


def test_a_damaged_certificate_is_named(dense: DenseModel, tmp_path: Path) -> None:
    dense.save_pretrained(tmp_path)
    (tmp_path / "certificate.json").write_bytes(b"\xff")
    with pytest.raises(LoadError, match=r"certificate\.json"):
        load(tmp_path)


def test_what_a_model_has_besides_is_the_modules() -> None:
    """Where there is no module, and where a name is misspelt, the error says so."""

    def refuse() -> ModuleView:
        raise ModuleViewError("heads differ")

    layer = nn.Linear(3, 2)
    graph = passes.trace(layer, (torch.randn(4, 3),))
    plan = passes.shrink(graph).plan
    dense = DenseModel(plan, view=lambda: ModuleView(layer, plan, "dims"), example_inputs=((), {}))
    known: Any = dense
    assert known.out_features == 2
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'out_feature'"):
        _ = known.out_feature
    alone: Any = DenseModel(plan, view=refuse, example_inputs=((), {}), graph_module=graph)
    with pytest.raises(AttributeError, match="'generate' would be the module's, and there is none: heads differ"):
        _ = alone.generate
    assert not hasattr(alone, "_anything")
