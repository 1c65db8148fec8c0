"""What a worker loads, and what cannot be timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import fx, nn

import passes
from bpc.bench.comparison import compare
from bpc.bench.sides import Tuned, one_product, prepare
from bpc.emit.onnx import export_onnx


def mlp(width: int) -> fx.GraphModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, width), nn.GELU(), nn.Linear(width, 16)).eval()
    return passes.trace(model, (torch.randint(3, 20, (2, 6)),))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("runtime", ["onnx", "eager", "cudagraphs"])
def test_a_missing_gpu_is_named(runtime: str) -> None:
    with pytest.raises(ValueError, match="sees no CUDA GPU"):
        compare(mlp(64), mlp(16), runtime=runtime, device="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cudagraphs.*on cpu: choose one of onnx, eager, compiled"):
        compare(mlp(64), mlp(16), runtime="cudagraphs")


def test_a_side_under_torch_runs_at_the_asked_shape(tmp_path: Path) -> None:
    side = prepare(mlp(24), tmp_path / "side", "eager", "float32", 3, 5)
    assert side.command["kind"] == "eager"
    program, inputs = torch.export.load(side.command["path"]), torch.load(side.command["inputs"])
    assert program.module()(*inputs["args"], **inputs["kwargs"]).shape == (3, 5, 16)
    assert side.flops(3, 5) == 3 * 5 * 2 * (16 * 24 + 24 * 16)


@pytest.mark.parametrize(
    ("runtime", "dtype", "device", "message"),
    [
        ("onnx", "float32", "tpu", "device='tpu' is not one of cpu, cuda"),
        ("tensorrt", "float32", "cpu", "runtime='tensorrt' on cpu: choose one of onnx, eager, compiled"),
        ("onnx", "float16", "cpu", "onnx has no float16 on cpu; it has float32, int8"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_any_work(
    tmp_path: Path, runtime: str, dtype: str, device: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(nn.Identity(), tmp_path / "side", runtime, dtype, 2, 4, device)  # type: ignore[arg-type]


def test_a_tuned_file_tells_the_worker_what_to_switch_off(tmp_path: Path) -> None:
    path = export_onnx(mlp(24), tmp_path / "m.onnx", check=False).path
    side = prepare(Tuned(path, ("GeluFusion",)), tmp_path / "side", "onnx", "float32", 2, 4)
    assert side.command["disabled"] == ["GeluFusion"]
    assert side.command["path"] == str(path)
    assert side.dtype == "float32"


def test_the_peak_is_one_product_of_a_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpc.bench.sides.PEAK_SIZE", 4)
    command = one_product(tmp_path)
    graph = ir.load(command["path"]).graph
    assert [node.op_type for node in graph] == ["MatMul"]
    assert list(graph.initializers) == ["weight"]
    assert np.load(command["inputs"])["rows"].shape == (4, 4)
