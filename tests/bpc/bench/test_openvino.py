"""Exported files under OpenVINO: the same numbers as under ONNX Runtime, and times beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import passes
from bpc.bench.comparison import compare
from bpc.bench.sides import prepare
from bpc.emit.onnx import export_onnx
from bpc.timing.worker import _load
from tests import snippets

openvino = pytest.importorskip("openvino", reason="60 MB, in the extra openvino, which the suite does without")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    model = snippets.noisy_bert(layers=2)
    ids = torch.randint(0, 1000, (2, 12))
    graph = passes.trace(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return {d: export_onnx(graph, folder / f"{d}.onnx", dtype=d).path for d in ("float32", "int8")}  # type: ignore[arg-type]


def outputs(file: Path, folder: Path, dtype: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Of OpenVINO and ONNX Runtime, and the dtype that is told."""
    side = prepare(file, folder, "openvino", dtype, 3, 20)
    run: Any = _load({**side.command, "threads": 1})
    with np.load(side.command["inputs"]) as feed:
        expected = onnxruntime.InferenceSession(file).run(None, dict(feed))[0]
    return next(iter(run().values())), expected, side.dtype


def test_float32_files_compute_the_same(files: dict[str, Path], tmp_path: Path) -> None:
    found, expected, dtype = outputs(files["float32"], tmp_path / "side", "float32")
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert dtype == "float32"


def test_int8_files_run_and_are_near(files: dict[str, Path], tmp_path: Path) -> None:
    found, expected, dtype = outputs(files["int8"], tmp_path / "side", "int8")
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())
    assert dtype == "int8"


def test_bfloat16_is_the_hint_on_a_float32_file(files: dict[str, Path], tmp_path: Path) -> None:
    side = prepare(files["float32"], tmp_path / "side", "openvino", "bfloat16", 3, 20)
    assert (side.command["hint"], side.dtype) == ("bf16", "bfloat16")
    assert prepare(files["float32"], tmp_path / "other", "openvino", "float32", 3, 20).command["hint"] == "f32"
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found, expected, _ = outputs(files["float32"], tmp_path / "run", "bfloat16")
        assert 1e-5 < np.abs(found - expected).max() / np.abs(expected).max() < 0.1


def test_it_is_timed_like_any_runtime(files: dict[str, Path]) -> None:
    found = compare(files["float32"], files["float32"], runtime="openvino", batch=2, length=8, repeats=7, threads=1)
    assert found.runtime == "openvino"
    assert "openvino" in found.machine.versions
    assert 0.2 < found.speedup < 5
    assert found.peak_gflops > 0  # type: ignore[operator]
