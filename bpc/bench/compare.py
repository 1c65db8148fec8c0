"""`compare`: dense against small at one batch and length."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from bpc.bench.feed import random_feed
from bpc.bench.result import Comparison, this_machine
from bpc.bench.timing import Clock, Worker, alternate, available_threads
from bpc.emit.axes import dynamic_axes, resized_inputs
from bpc.emit.flops import FlopModel, flop_model
from bpc.emit.onnx import FLOPS_KEY, OPSET, export_onnx, graph_of
from passes.program import exported_program, trace_info

Runtime = Literal["onnx", "eager", "compiled"]
_PEAK_SIZE = 2048


def compare(
    dense: Any,
    small: Any,
    *,
    batch: int = 8,
    length: int = 64,
    runtime: Runtime = "onnx",
    dtype: str = "float32",
    repeats: int = 9,
    threads: int | None = None,
    clock: Clock = "wall",
    peak: bool = True,
) -> Comparison:
    """Time ``dense`` against ``small`` at one batch and length, beside the ratio of their arithmetic.

    Parameters
    ----------
    dense, small: ``.onnx`` files that `bpc.export_onnx` wrote (runtime "onnx" only), or what `bpc.export_onnx` takes:
        traced graphs, shrink results, dense models. Graphs are exported to temporary files with the same defaults.
    batch, length: sizes of the ``batch`` and ``sequence`` axes.
    runtime: "onnx" (ONNX Runtime, CPU provider, a plain session), "eager" or "compiled" (torch).
    dtype: of the ONNX files to write from graphs; files are what they are.
    repeats: timed runs of each side, at least 7; the sides take turns, each in a process of its own.
    threads: CPU threads of each side; default all this process may use.
    clock: "wall", or "cpu" (with threads=1): CPU seconds of the side's process, for machines that are busy.
    peak: also measure what a float32 matrix product reaches.

    Returns a `Comparison`: ``.speedup``, ``.arithmetic_ratio``, ``.efficiency``, ``.dense``/``.small`` (seconds), a
    rich table when printed. Raises ValueError for files whose arithmetic is unknown (not written by bpc), and
    `bpc.bench.timing.BenchmarkError` where a side cannot run.
    """
    threads = threads or available_threads()
    if clock == "cpu" and threads != 1:
        raise ValueError('clock="cpu" adds up the time of all threads, waiting ones too: use it with threads=1')
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder, contextlib.ExitStack() as stack:
        sides = [
            _prepare(source, Path(folder) / name, runtime, dtype, batch, length)
            for name, source in (("dense", dense), ("small", small))
        ]
        workers = [
            stack.enter_context(Worker(name, {"threads": threads, **command}))
            for name, (command, _) in zip(("dense", "small"), sides, strict=True)
        ]
        timings = alternate(workers, repeats=repeats, clock=clock)
    return Comparison(
        batch=batch,
        length=length,
        runtime=runtime,
        dtype=dtype,
        dense=timings[0],
        small=timings[1],
        dense_flops=sides[0][1](batch, length),
        small_flops=sides[1][1](batch, length),
        peak_gflops=matmul_peak(threads, clock, runtime) if peak else None,
        clock=clock,
        machine=this_machine(threads),
    )


def matmul_peak(threads: int | None = None, clock: Clock = "wall", runtime: Runtime = "onnx") -> float:
    """GFLOP/s of a 2048³ float32 matrix product in the same runtime: what the machine gives to a plain product."""
    command: dict[str, Any] = {"kind": "matmul", "size": _PEAK_SIZE, "dtype": "float32"}
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder:
        if runtime == "onnx":
            command = _one_product(Path(folder))
        with Worker("matmul", {"threads": threads or available_threads(), **command}) as worker:
            return 2 * _PEAK_SIZE**3 / min(worker.time(2, 7, clock)) / 1e9


def _one_product(folder: Path) -> dict[str, Any]:
    """A file of one MatMul with a constant weight, and its input."""
    rows = ir.Value(name="rows", shape=ir.Shape([_PEAK_SIZE] * 2), type=ir.TensorType(ir.DataType.FLOAT))
    generator = np.random.default_rng(0)
    weight = ir.Value(name="weight", const_value=ir.tensor(_square(generator)))
    product = ir.node("MatMul", [rows, weight])
    product.outputs[0].shape, product.outputs[0].type = rows.shape, rows.type
    graph = ir.Graph([rows], product.outputs, nodes=[product], initializers=[weight], opset_imports={"": OPSET})
    ir.save(ir.Model(graph, ir_version=10), folder / "product.onnx")
    np.savez(folder / "inputs.npz", rows=_square(generator))
    return {"kind": "onnx", "path": str(folder / "product.onnx"), "inputs": str(folder / "inputs.npz")}


def _square(generator: np.random.Generator) -> np.ndarray:
    return generator.standard_normal((_PEAK_SIZE, _PEAK_SIZE), dtype=np.float32)


def _prepare(
    source: Any, folder: Path, runtime: Runtime, dtype: str, batch: int, length: int
) -> tuple[dict[str, Any], FlopModel]:
    """(the worker's load command, the FLOP model) of one side."""
    folder.mkdir()
    if isinstance(source, str | os.PathLike):
        if runtime != "onnx":
            raise ValueError(f"{source} is a file: runtime={runtime!r} needs a graph")
        return _onnx_side(Path(source), folder, batch, length)
    if runtime == "onnx":
        path = export_onnx(source, folder / "model.onnx", dtype=dtype).path  # type: ignore[arg-type]
        return _onnx_side(path, folder, batch, length)
    return _torch_side(source, folder, runtime, batch, length)


def _onnx_side(path: Path, folder: Path, batch: int, length: int) -> tuple[dict[str, Any], FlopModel]:
    model = ir.load(path)
    text = model.metadata_props.get(FLOPS_KEY)
    if text is None:
        raise ValueError(f"{path} does not say what arithmetic it does ({FLOPS_KEY}): write it with bpc.export_onnx")
    inputs = folder / "inputs.npz"
    np.savez(inputs, allow_pickle=False, **random_feed(model, batch, length))
    return {"kind": "onnx", "path": str(path), "inputs": str(inputs)}, FlopModel.from_json(text)


def _torch_side(
    source: Any, folder: Path, runtime: Runtime, batch: int, length: int
) -> tuple[dict[str, Any], FlopModel]:
    graph = graph_of(source)
    program = exported_program(graph)
    axes = dynamic_axes(graph, program)
    flops = flop_model(graph, axes)
    if flops is None:
        raise ValueError("the arithmetic of this graph is no polynomial of batch and length; bpc cannot rate it")
    torch.export.save(program, folder / "model.pt2")
    info = trace_info(graph)
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    fresh = iter(resized_inputs(graph, axes, {"batch": batch, "sequence": length}))
    leaves = [next(fresh) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    torch.save({"args": args, "kwargs": kwargs}, folder / "inputs.pt")
    return {"kind": runtime, "path": str(folder / "model.pt2"), "inputs": str(folder / "inputs.pt")}, flops


def comparisons(dense: Any, small: Any, shapes: list[tuple[int, int]], **options: Any) -> Iterator[Comparison]:
    """`compare` at each (batch, length)."""
    for batch, length in shapes:
        yield compare(dense, small, batch=batch, length=length, **options)
