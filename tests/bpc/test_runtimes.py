"""Without ONNX Runtime everything else works, and what needs it says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import passes
from bpc.cli import app
from bpc.emit import export_onnx
from bpc.runtimes import RuntimeMissing, onnxruntime

_WITHOUT = """
import sys
sys.modules["onnxruntime"] = None
import torch
from transformers import BertConfig, BertForSequenceClassification
import bpc, bpc.bench.comparison, bpc.cli, bpc.emit.onnx, bpc.emit.generation
sizes = dict(hidden_size=16, num_attention_heads=2, intermediate_size=24, vocab_size=60, num_hidden_layers=1)
data = [{"input_ids": torch.randint(0, 60, (4, 6))} for _ in range(4)]
dense = bpc.prune_once(BertForSequenceClassification(BertConfig(**sizes)), data, bpc.Target(params=0.9), progress=False)
dense.save_pretrained("small")
try:
    bpc.load("small").export_onnx("small.onnx")
except ValueError as error:
    print(error)
"""


def test_pruning_saving_and_loading_do_without(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('ONNX Runtime is not installed: pip install "block-pruning-compiler[cpu]"')
    assert not (tmp_path / "small.onnx").exists()


def test_what_needs_it_says_so_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = passes.trace(nn.Linear(4, 4).eval(), {"input": torch.ones(2, 4)})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for dtype in ("float32", "int8"):
        with pytest.raises(RuntimeMissing, match=r"\[cpu\].*\[gpu\].*One of the two"):
            export_onnx(graph, tmp_path / "m.onnx", dtype=dtype)  # type: ignore[arg-type]
    (tmp_path / "m.onnx").touch()
    said = CliRunner().invoke(app, ["bench", "--dense", str(tmp_path / "m.onnx"), "--small", str(tmp_path / "m.onnx")])
    assert said.exit_code == 1
    assert "ONNX Runtime is not installed: pip install" in said.stderr


def test_a_folder_that_an_uninstalled_build_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(RuntimeMissing, match="pip uninstall onnxruntime onnxruntime-gpu, then pip install"):
        onnxruntime()


def test_a_library_that_it_lacks_is_another_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import no_such_library")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        onnxruntime()


def test_a_missing_openvino_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    options = ["--dense", str(tmp_path), "--small", str(tmp_path), "--runtime", "openvino"]
    said = CliRunner().invoke(app, ["bench", *options])
    assert said.exit_code == 1
    assert 'OpenVINO is not installed: pip install "block-pruning-compiler[openvino]"' in said.stderr
