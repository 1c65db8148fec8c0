"""ONNX files with a cache give, token by token, what the masked model's own generate() gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch._dynamo.config
import transformers
from torch import nn

import passes
from bpc.emit import ExportError, export_generation
from bpc.emit.generation import ALL, BATCH, LENGTH, PAST, SOURCE, _compare, _layout
from bpc.emit.steps import Case, decoder_steps
from tests.bpc import generators

PAGE = (Path(__file__).parents[3] / "docs" / "generation.md").read_text()
USE, EXPORT, *LOOPS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
NEW = 7


@pytest.fixture(autouse=True, scope="module")
def repeated_operators_are_remembered(every_operator_is_inferred_anew: None) -> Iterator[None]:
    """One export traces a model twice and more."""
    with torch._dynamo.config.patch(fake_tensor_cache_enabled=True):
        yield


@pytest.fixture(scope="module")
def loops() -> dict[str, Any]:
    """The loops of the documentation."""
    names: dict[str, Any] = {}
    for snippet in LOOPS:
        exec(compile(snippet, "docs/generation.md", "exec"), names)
    return names


def expected(model: Any, count: int = NEW) -> np.ndarray:
    """The masked model's tokens, greedy."""
    given = generators.prompt(model)
    tokens = model.generate(**given, max_new_tokens=count, do_sample=False)
    return np.asarray(tokens[:, -count:])


def shapes(file: Path) -> dict[str, list[int | str]]:
    session = onnxruntime.InferenceSession(file)
    return {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}


def skip_all_but(request: pytest.FixtureRequest, family: str, usual: str) -> None:
    if family != usual and not request.config.getoption("--every-pair"):
        pytest.skip(f"an export takes seconds, and {usual} takes all of the ways; --every-pair runs them all")


@pytest.mark.parametrize("family", generators.DECODERS)
def test_a_decoders_file_gives_the_masked_models_tokens(
    family: str,
    tmp_path: Path,
    loops: dict[str, Any],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skip_all_but(request, family, "llama")
    monkeypatch.chdir(tmp_path)
    model, dense = generators.small(family)
    exec(compile(EXPORT, "docs/generation.md", "exec"), {"dense": dense})
    place = tmp_path / "small-onnx"
    assert {file.name for file in place.iterdir()} == {"model.onnx", "config.json", "generation_config.json"}
    assert transformers.AutoConfig.from_pretrained(place).model_type == model.config.model_type
    assert not hasattr(transformers.AutoConfig.from_pretrained(place), "quantization_config")
    assert transformers.GenerationConfig.from_pretrained(place).pad_token_id == 0
    found = loops["generate"](place / "model.onnx", generators.IDS.numpy(), generators.LEFT.numpy(), NEW)
    assert found.tolist() == expected(model).tolist()
    file = shapes(place / "model.onnx")
    assert file["input_ids"] == [BATCH, LENGTH]
    assert file["attention_mask"] == [BATCH, ALL]
    cache = dense.module(**generators.prompt(model), use_cache=True).past_key_values
    heads = [layer.keys.shape[1] for layer in cache.layers]
    assert len(set(heads)) > 1
    for number, count in enumerate(heads):
        assert file[f"past_key_values.{number}.key"] == [BATCH, count, PAST, 8]
        assert file[f"present.{number}.value"] == [BATCH, count, ALL, 8]


@pytest.mark.parametrize("family", generators.ENCODER_DECODERS)
def test_the_files_of_an_encoder_and_a_decoder_give_the_masked_models_tokens(
    family: str, tmp_path: Path, loops: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    skip_all_but(request, family, "bart")
    model, dense = generators.small(family)
    written = dense.export_onnx(tmp_path, generation=True)
    assert set(written.files) == {"encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"}
    start = model.generation_config.decoder_start_token_id
    source = {name: tensor.numpy() for name, tensor in generators.prompt(model).items()}
    assert loops["transcribe"](tmp_path, source, start, NEW).tolist() == expected(model).tolist()
    later = shapes(tmp_path / "decoder_with_past_model.onnx")
    assert later["past_key_values.0.encoder.key"][2] == SOURCE
    assert later["past_key_values.0.decoder.key"][2] == PAST
    assert later["present.0.decoder.key"][2] == ALL


def test_the_page_shows_how_to_use_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = generators.DECODERS["llama"]()
    model.save_pretrained("small")
    names = {"AutoModelForCausalLM": transformers.AutoModelForCausalLM, "texts": []}
    exec(compile(USE, "docs/generation.md", "exec"), names | {"tokenizer": lambda *_, **__: generators.prompt(model)})


class Branches(nn.Module):
    """Another sum for long inputs."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": x.cumsum(1) if x.shape[1] > 6 else x + 1}


def test_a_branch_that_a_case_takes_and_the_trace_did_not_is_refused() -> None:
    graph = passes.trace(Branches(), {"x": torch.randn(2, 4)})
    _compare(Branches(), graph, [Case("four", {"x": torch.randn(2, 4)})])
    with pytest.raises(ExportError, match="traced along a branch that seven does not take"):
        _compare(Branches(), graph, [Case("seven", {"x": torch.randn(2, 7)})])
    with pytest.raises(ExportError, match="not the model any more with four"):
        _compare(
            nn.Identity(), passes.trace(nn.Sigmoid(), (torch.randn(2, 4),)), [Case("four", {"input": torch.ones(2, 4)})]
        )


def test_a_model_in_half_precision_is_checked_as_its_file_is_made() -> None:
    """In float32: ONNX Runtime would not take its caches."""
    ((step, cases),) = decoder_steps(generators.DECODERS["llama"]().to(torch.bfloat16))
    leaves = [leaf for _, inputs in _layout(step, cases).cases for leaf in inputs]
    assert {leaf.dtype for leaf in leaves if isinstance(leaf, torch.Tensor)} == {torch.float32, torch.int64}


def test_models_without_such_a_cache_are_refused(tmp_path: Path) -> None:
    mamba = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=4)
    )
    with pytest.raises(ExportError, match=r"MambaForCausalLM cannot be exported for generation: .*keys and values"):
        export_generation(mamba, tmp_path)
    bert = transformers.BertModel(
        transformers.BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ExportError, match=r"BertModel does not generate text"):
        export_generation(bert, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_models_directory_is_left_alone(tmp_path: Path) -> None:
    model = generators.DECODERS["llama"]()
    model.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(FileExistsError, match=r"holds a model \(model\.safetensors\)"):
        export_generation(model, tmp_path)
    assert (tmp_path / "config.json").read_text() == before
