from __future__ import annotations

import importlib
import json
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from rich.console import Console
from torch import fx, nn

import passes
from bpc.bench.comparison import compare, compare_all, matmul_peak
from bpc.bench.result import Comparison, comparison_table, this_machine
from bpc.emit.onnx import export_onnx
from bpc.timing.alternate import BenchmarkError, Timing, Worker, alternate
from bpc.timing.feed import random_feed


def mlp(width: int) -> fx.GraphModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, width), nn.GELU(), nn.Linear(width, 16)).eval()
    return passes.trace(model, (torch.randint(3, 20, (2, 6)),))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    return tuple(export_onnx(mlp(w), folder / f"{w}.onnx").path for w in (64, 16))  # type: ignore[return-value]


def comparison(dense: float, small: float) -> Comparison:
    times = [Timing(n, (t,) * 7) for n, t in (("dense", dense), ("small", small))]
    return Comparison(8, 64, "onnx", "float32", *times, 4_000_000_000, 1_000_000_000, 100.0, "wall", this_machine(2))


def test_figures_of_a_comparison() -> None:
    c = comparison(0.4, 0.125)
    assert (c.speedup, c.arithmetic_ratio, c.efficiency) == (pytest.approx(3.2), 4.0, pytest.approx(0.8))
    assert (c.dense_gflops, c.small_gflops) == (pytest.approx(10), pytest.approx(8))
    assert json.loads(c.to_json())["efficiency"] == pytest.approx(0.8)
    console = Console(width=400, record=True)
    console.print(comparison_table([c]))
    text = " ".join(console.export_text().split())  # the caption may be folded
    for figure in ("8 × 64", "3.20×", "4.00×", "0.80", "100 GFLOP/s", "2 threads"):
        assert figure in text


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("runtime", ["onnx", "eager", "cudagraphs"])
def test_a_missing_gpu_is_named(runtime: str) -> None:
    with pytest.raises(ValueError, match="sees no CUDA GPU"):
        compare(mlp(64), mlp(16), runtime=runtime, device="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cudagraphs.*on cpu: choose one of onnx, eager, compiled"):
        compare(mlp(64), mlp(16), runtime="cudagraphs")


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


class Padded(nn.Module):
    """Hides keys in torch's sense: True is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]


def test_masks_hide_nothing_in_their_own_sense(tmp_path: Path) -> None:
    padding = torch.arange(5).expand(2, 5) >= torch.tensor([[5], [3]])
    written = export_onnx(passes.trace(Padded().eval(), (torch.randn(2, 5, 8), padding)), tmp_path / "m.onnx")
    feed = random_feed(ir.load(written.path), 3, 4)
    assert feed["padding"].shape == (3, 4)
    assert not feed["padding"].any()


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


def test_a_side_that_cannot_load_is_named(tmp_path: Path) -> None:
    command = {"kind": "onnx", "path": str(tmp_path / "absent.onnx"), "inputs": "", "threads": 1}
    with pytest.raises(BenchmarkError, match=r"small: .*absent\.onnx"):
        Worker("small", command)


def test_peak_is_positive() -> None:
    assert matmul_peak(1, "cpu") > 1
