from __future__ import annotations

import importlib
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from rich.console import Console
from torch import fx, nn

import passes
from bpc.bench.comparison import compare, compare_all, matmul_peak
from bpc.emit.onnx import export_onnx
from bpc.results.comparison import comparison_table
from bpc.timing.alternate import alternate
from bpc.timing.feed import random_feed


def mlp(width: int) -> fx.GraphModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, width), nn.GELU(), nn.Linear(width, 16)).eval()
    return passes.trace(model, (torch.randint(3, 20, (2, 6)),))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    return tuple(export_onnx(mlp(w), folder / f"{w}.onnx").path for w in (64, 16))  # type: ignore[return-value]


def test_files_are_timed_and_their_arithmetic_read(files: tuple[Path, Path]) -> None:
    result = compare(*files, batch=3, length=11, repeats=7, threads=1, peak=False)
    assert result.dense_flops == 3 * 11 * 2 * (16 * 64 + 64 * 16)
    assert result.arithmetic_ratio == 4.0
    assert len(result.dense.seconds) == len(result.small.seconds) == 7
    assert all(0 < s < 60 for s in result.dense.seconds)


def test_graphs_run_under_torch(files: tuple[Path, Path]) -> None:
    result = compare(
        mlp(64), mlp(16), batch=2, length=5, runtime="eager", repeats=7, threads=1, clock="cpu", peak=False
    )
    assert result.arithmetic_ratio == 4.0
    with pytest.raises(ValueError, match="needs a graph"):
        compare(*files, runtime="eager")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("runtime", ["onnx", "eager", "compiled", "cudagraphs"])
def test_all_runtimes_on_a_gpu(runtime: str) -> None:
    result = compare(mlp(64), mlp(16), batch=2, length=5, runtime=runtime, dtype="float16", device="cuda")  # type: ignore[arg-type]
    assert result.arithmetic_ratio == 4.0
    assert result.machine.gpu == torch.cuda.get_device_name()
    assert result.peak_gflops is not None


def test_the_name_bench_compare_is_the_function() -> None:
    assert importlib.import_module("bpc.bench").compare is compare


def test_several_models_in_one_run(files: tuple[Path, Path], tmp_path: Path) -> None:
    low = export_onnx(mlp(16), tmp_path / "8.onnx", dtype="int8").path
    found = compare_all(files[0], {"a": files[1], "b": low}, batch=2, length=5, repeats=7, threads=1, peak=False)
    assert [(c.small.name, c.dtype) for c in found] == [("a", "float32"), ("b", "float32 → int8")]
    assert found[0].dense is found[1].dense
    console = Console(width=300, record=True)
    console.print(comparison_table(found))
    assert "model" in console.export_text()


def test_graphs_run_in_bfloat16() -> None:
    options = {"runtime": "eager", "dtype": "bfloat16", "repeats": 7, "threads": 1, "peak": False}
    assert compare(mlp(64), mlp(16), batch=2, length=5, **options).dtype == "bfloat16"
    assert compare(mlp(64), mlp(16), batch=2, length=5, dense_dtype="float32", **options).dtype == "float32 → bfloat16"
    with pytest.raises(ValueError, match="eager has no int8 on cpu; it has float32, bfloat16, float16"):
        compare(mlp(64), mlp(16), runtime="eager", dtype="int8")


def test_inputs_keep_to_the_range_of_the_example(files: tuple[Path, Path]) -> None:
    (ids,) = random_feed(ir.load(files[0]), 5, 40).values()
    assert ids.shape == (5, 40)
    assert 3 <= ids.min() < ids.max() < 20


def test_refusals(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer than 7"):
        alternate([], repeats=5)
    with pytest.raises(ValueError, match="threads=1"):
        compare(*files, clock="cpu", threads=2)
    model = ir.load(files[0])
    model.metadata_props.clear()
    ir.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="does not say what arithmetic"):
        compare(tmp_path / "foreign.onnx", files[1])


def test_peak_is_positive() -> None:
    assert matmul_peak(1, "cpu") > 1
