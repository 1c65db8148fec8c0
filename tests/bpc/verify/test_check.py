"""The checker: a good directory passes, and whatever is changed in one is named."""

from __future__ import annotations

import ast
import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

import passes
from bpc.dense import DenseModel, load
from bpc.verify import Unusable, Verdict, verify
from passes.certificate import Certificate, digests

ROOT = Path(__file__).parents[3]
IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
BIAS = "bert.encoder.layer.0.attention.output.dense.bias"  # takes the constant of a dead head
VALUE = "bert.encoder.layer.0.attention.self.value.weight"


@pytest.fixture(scope="module")
def masked() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48, vocab_size=60, num_hidden_layers=1)
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
        layer = model.bert.encoder.layer[0]
        layer.attention.self.value.weight[8:16] = 0
        layer.intermediate.dense.weight[:10] = 0
        layer.output.dense.weight[:, 40:] = 0  # rows of the first product that are not zero, and nothing reads them
    return model


@pytest.fixture(scope="module")
def written(masked: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = passes.trace(masked, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    directory = tmp_path_factory.mktemp("small") / "model"
    DenseModel.from_shrink(passes.shrink(graph), masked).save_pretrained(directory)
    return directory


@pytest.fixture
def directory(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "model")


def differing(verdict: Verdict) -> str:
    assert not verdict.agrees
    return verdict.findings[-1][1]


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], None], *, certify: bool = False) -> None:
    """Change the saved weights; ``certify`` makes a certificate that fits them, as a forger would."""
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    if certify:
        file = directory / "certificate.json"
        forged = replace(
            Certificate.from_json(file.read_text()),
            small=digests(load(directory, check_hashes=False).module.state_dict().items()),
        )
        file.write_text(forged.to_json())


def replan(directory: Path, change: Callable[[dict[str, Any]], None], *, certify: bool) -> None:
    file = directory / "bpc.json"
    content = json.loads(file.read_text())
    change(content["plans"][-1])
    file.write_text(json.dumps(content))
    if certify:
        certificate = directory / "certificate.json"
        forged = replace(Certificate.from_json(certificate.read_text()), plan=content["plans"][-1])
        certificate.write_text(forged.to_json())


def add_to(name: str, amount: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[name].view(-1)[0] += amount

    return change


def test_a_good_directory_agrees_and_says_what_was_done(directory: Path, masked: nn.Module) -> None:
    before = copy.deepcopy(masked.state_dict())
    verdict = verify(directory, masked)
    assert verdict.agrees, str(verdict)
    assert {outcome for outcome, _ in verdict.findings} == {"agrees"}
    text = str(verdict)
    assert "3 sets of other numbers" in text
    assert "2 biases are what folding makes of them" in text
    shapes = Certificate.from_json((directory / "certificate.json").read_text()).agreement["shapes"]
    assert all(shape in text for shape in shapes)
    assert all(torch.equal(before[name], tensor) for name, tensor in masked.state_dict().items())


def test_without_the_masked_model_it_says_what_was_not_checked(directory: Path) -> None:
    verdict = verify(directory)
    assert verdict.agrees
    assert str(verdict).endswith("not checked: that it computes what the masked model does: none was given")


@pytest.mark.parametrize("name", [VALUE, BIAS, "classifier.bias"])
def test_one_weight_that_was_changed_is_named(directory: Path, masked: nn.Module, name: str) -> None:
    rewrite(directory, add_to(name, 1e-3))
    assert f"model.safetensors: {name} has other numbers" in differing(verify(directory))
    rewrite(directory, add_to(name, 0), certify=True)  # now the certificate is of the changed weight
    assert verify(directory).agrees
    assert name in differing(verify(directory, masked))


def test_a_plan_that_was_changed_is_named(directory: Path, masked: nn.Module) -> None:
    def other_constant(plan: dict[str, Any]) -> None:
        plan["folds"][0]["constants"][0] += 0.5

    replan(directory, other_constant, certify=False)
    assert "bpc.json: folds of its plan are not the certificate's" in differing(verify(directory))
    replan(directory, lambda plan: None, certify=True)
    assert verify(directory).agrees
    assert "is not the masked bias plus the constants" in differing(verify(directory, masked))


def test_a_certificate_that_was_changed_is_refused(directory: Path) -> None:
    file = directory / "certificate.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "agreement": None}))
    with pytest.raises(RuntimeError, match=r"certificate\.json: the certificate was changed"):
        verify(directory)
    file.unlink()
    with pytest.raises(Unusable, match=r"has no certificate\.json"):
        verify(directory)


def test_another_masked_model_is_refused_by_the_tensor_that_differs(directory: Path, masked: nn.Module) -> None:
    other = copy.deepcopy(masked)
    with torch.no_grad():
        other.get_parameter(VALUE)[0, 0] = 0
    assert f"the masked model: {VALUE} has other numbers" in differing(verify(directory, other))
    assert "is in it or in the certificate" in differing(verify(directory, nn.Linear(3, 3)))


def test_a_consistent_forgery_fails_by_what_the_models_compute(masked: nn.Module, tmp_path: Path) -> None:
    """A plan that cuts what is alive, weights and certificate to match: only running both models can tell."""
    lying = copy.deepcopy(masked)
    with torch.no_grad():
        lying.bert.encoder.layer[0].output.dense.weight[:, 39] = 0  # so FFN dim 39 seems dead
    graph = passes.trace(lying, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    DenseModel.from_shrink(passes.shrink(graph), lying).save_pretrained(tmp_path)
    file = tmp_path / "certificate.json"
    honest = Certificate.from_json(file.read_text())
    hashes = digests((n, t) for n, t in masked.named_parameters() if n in honest.masked)
    file.write_text(replace(honest, masked=hashes).to_json())
    assert "as far from the masked one as rounding" in differing(verify(tmp_path, masked))


def test_equality_by_accident_fails_under_other_numbers(masked: nn.Module, tmp_path: Path) -> None:
    """Two weights that cancel: FFN dims 38 and 39 are twins with opposite signs behind them."""
    twins = copy.deepcopy(masked)
    with torch.no_grad():
        first, second = twins.bert.encoder.layer[0].intermediate.dense, twins.bert.encoder.layer[0].output.dense
        first.weight[39], first.bias[39] = first.weight[38], first.bias[38]
        second.weight[:, 39] = -second.weight[:, 38]
        cut = copy.deepcopy(twins)
        cut.bert.encoder.layer[0].output.dense.weight[:, 38:40] = 0
    graph = passes.trace(cut, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    DenseModel.from_shrink(passes.shrink(graph), cut).save_pretrained(tmp_path)
    file = tmp_path / "certificate.json"
    honest = Certificate.from_json(file.read_text())
    hashes = digests((n, t) for n, t in twins.named_parameters() if n in honest.masked)
    file.write_text(replace(honest, masked=hashes).to_json())
    assert verify(tmp_path, twins, reweightings=0).agrees
    assert "re-weighting 1" in differing(verify(tmp_path, twins))


def test_a_channel_folded_as_a_constant_that_varies_is_named(masked: nn.Module, directory: Path) -> None:
    def also(plan: dict[str, Any]) -> None:
        fold = next(f for f in plan["folds"] if "layer.0.output" in f["weight"])
        fold["columns"].append(45)  # its weight is zero, so that no number changes
        fold["constants"].append(0.25)

    replan(directory, also, certify=True)
    assert "channel 45" in differing(verify(directory, masked))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_held_to_theirs(masked: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    model = copy.deepcopy(masked).to(dtype)
    graph = passes.trace(model, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    DenseModel.from_shrink(passes.shrink(graph), model).save_pretrained(tmp_path)
    verdict = verify(tmp_path, model)
    assert verdict.agrees, str(verdict)


def test_a_coarser_module_is_checked_by_its_own_plan(tmp_path: Path) -> None:
    config = T5Config(num_layers=2, num_decoder_layers=1, d_model=32, d_kv=8, d_ff=40, num_heads=4, vocab_size=60)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.encoder.block[0].layer[0].SelfAttention.v.weight[:16] = 0
        model.encoder.block[1].layer[0].SelfAttention.v.weight[:8] = 0
        model.encoder.block[1].layer[1].DenseReluDense.wi.weight[:12] = 0
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS, "use_cache": False}
    DenseModel.from_shrink(passes.shrink(passes.trace(model, inputs)), model).save_pretrained(tmp_path)
    verdict = verify(tmp_path, model)
    assert verdict.agrees, str(verdict)


def test_a_model_that_was_shrunk_twice_is_held_against_the_first(written: Path, tmp_path: Path) -> None:
    once = load(written).module
    with torch.no_grad():
        once.bert.encoder.layer[0].intermediate.dense.weight[:6] = 0
    graph = passes.trace(once, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    DenseModel.from_shrink(passes.shrink(graph), once).save_pretrained(tmp_path)
    verdict = verify(tmp_path, once)
    assert verdict.agrees, str(verdict)


# -------------------------------------------------------------------------------------------------------- independence

# What a checker may know of the project: certificates as data, and the door to a saved directory that users take.
ALLOWED = ("bpc.verify", "bpc.dense.load", "bpc.directory", "passes.certificate")


def test_the_checker_imports_nothing_that_rewrites_and_is_short() -> None:
    lines = 0  # comments, blanks and all
    for file in sorted((ROOT / "bpc" / "verify").glob("*.py")):
        lines += len(file.read_text().splitlines())
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = [name for name in names if name.split(".")[0] in ("bpc", "passes")]
            assert all(name.startswith(ALLOWED) for name in ours), (file.name, ours)
    assert lines <= 500


def test_a_width_mask_is_no_reason_to_compare_with_norms_over_all_channels(masked: nn.Module, tmp_path: Path) -> None:
    """The directory loads, narrow in every embedding and norm, and checks alone; MASKED is refused with the reason."""
    example = {"input_ids": torch.randint(1, 20, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    kept = torch.arange(masked.config.hidden_size) % 4 != 1
    result = passes.shrink(passes.trace(masked, example), width=kept)
    DenseModel.from_shrink(result, masked).save_pretrained(tmp_path / "small")
    again = load(tmp_path / "small")
    embeddings = again.module.get_input_embeddings()
    assert embeddings.weight.shape[1] == embeddings.embedding_dim == int(kept.sum())
    with torch.no_grad():
        torch.testing.assert_close(again(**example)[0], result.graph_module(**example)[0], rtol=0, atol=1e-6)
    assert verify(tmp_path / "small").agrees
    with pytest.raises(Unusable, match="made with a width mask"):
        verify(tmp_path / "small", masked)
