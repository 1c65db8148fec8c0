"""What `bpc export` offers and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from bpc.cli import export
from bpc.emit.embeddings import Embeddings
from bpc.emit.generation import GenerationExport
from bpc.emit.onnx import Dtype
from bpc.emit.recipe import Target
from bpc.emit.stored import Storage
from bpc.terminal.options import dtype_named
from tests.bpc.cli.commands import run


def test_export_offers_what_there_is() -> None:
    hints = get_type_hints(export)  # the module's own names: importing bpc.emit for --help would take seconds
    assert get_args(hints["target"]) == get_args(Target)
    assert {dtype_named(name) for name in get_args(hints["dtype"])} == {*get_args(Dtype)}
    assert (get_args(hints["embeddings"])[0], hints["storage"]) == (Embeddings, Storage)
    result = run("export", "--model", "m", "--out", "m.onnx", "--target", "gpu")
    assert result.exit_code == 2
    assert "'gpu'" in result.output


@pytest.mark.slow
def test_export_writes_an_onnx_file_with_dynamic_axes(model_directory: Path, tmp_path: Path) -> None:
    result = run("export", "--model", model_directory, "--out", tmp_path / "model.onnx")
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ids = torch.randint(4, 16, (5, 11))
    feeds = {i.name: (torch.ones_like(ids) if "mask" in i.name else ids).numpy() for i in session.get_inputs()}
    model = AutoModelForSequenceClassification.from_pretrained(model_directory).eval()
    expected = model(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(torch.from_numpy(session.run(None, feeds)[0]), expected, rtol=1e-4, atol=1e-5)


def test_export_passes_on_what_the_file_stores(
    model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpc.emit.embeddings.SMALL", 1)
    monkeypatch.setattr("bpc.emit.embeddings.LARGE", 1)
    monkeypatch.setattr("bpc.emit.stored._FEW", 1)
    path = tmp_path / "model.onnx"
    result = run("export", "--model", model_directory, "--out", path, "--embeddings", "int4", "--storage", "float16")
    assert result.exit_code == 0, result.output
    kinds = {value.dtype for value in ir.load(path).graph.initializers.values()}
    assert {ir.DataType.UINT8, ir.DataType.FLOAT16} <= kinds


def test_generation_writes_a_directory_with_the_tokenizer(
    model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the files hold: tests/bpc/emit/test_generation.py."""
    given: dict[str, Any] = {}

    def record(model: Any, out: Path, **options: Any) -> GenerationExport:
        given.update(options, model=type(model).__name__)
        return GenerationExport(out, {})

    monkeypatch.setattr("bpc.emit.generation.export_generation", record)
    for _ in range(2):  # a second export replaces the first
        result = run("export", "--model", model_directory, "--out", tmp_path / "out", "--generation", "--dtype", "int8")
        assert result.exit_code == 0, result.output
        (tmp_path / "out" / "config.json").write_text("{}")
    assert given == {
        "model": "BertForSequenceClassification", "target": "cpu", "dtype": "int8", "embeddings": None,
        "storage": "float32", "check": True,
    }  # fmt: skip
    assert (tmp_path / "out" / "tokenizer.json").exists()
    result = run("export", "--model", model_directory, "--out", model_directory, "--generation")
    assert "is the model itself" in result.output


def test_a_model_that_generates_nothing_is_refused(model_directory: Path, tmp_path: Path) -> None:
    result = run("export", "--model", model_directory, "--out", tmp_path / "out", "--generation")
    assert result.exit_code == 3
    assert "BertForSequenceClassification does not generate text" in result.output
    assert not (tmp_path / "out").exists()
