"""`compare`: dense against small at one batch and length; `compare_all`: against several models in the same run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpc.bench.result import Comparison, this_machine
from bpc.bench.sides import PEAK_SIZE, Runtime, one_product, prepare
from bpc.bench.timing import Clock, Worker, alternate, available_threads


def compare(
    dense: Any,
    small: Any,
    *,
    batch: int = 8,
    length: int = 64,
    runtime: Runtime = "onnx",
    dtype: str = "float32",
    dense_dtype: str | None = None,
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
    dtype: "float32"; "int8" for ONNX files written from graphs (files are what they are); "bfloat16" and "float16"
        under torch, see `bpc.emit.half`.
    dense_dtype: of the dense side, where it is another.
    repeats: timed runs of each side, at least 7; the sides take turns, each in a process of its own.
    threads: CPU threads of each side; default all this process may use.
    clock: "wall", or "cpu" (with threads=1): CPU seconds of the side's process, for machines that are busy.
    peak: also measure what a float32 matrix product reaches.

    Returns a `Comparison`: ``.speedup``, ``.arithmetic_ratio``, ``.efficiency``, ``.dense``/``.small`` (seconds), a
    rich table when printed. Raises ValueError for files whose arithmetic is unknown (not written by bpc) and dtypes
    the runtime does not have, and `bpc.bench.timing.BenchmarkError` where a side cannot run.
    """
    (found,) = compare_all(
        dense,
        {"small": small},
        batch=batch,
        length=length,
        runtime=runtime,
        dtype=dtype,
        dense_dtype=dense_dtype,
        repeats=repeats,
        threads=threads,
        clock=clock,
        peak=peak,
    )
    return found


def compare_all(
    dense: Any,
    others: Mapping[str, Any],
    *,
    batch: int = 8,
    length: int = 64,
    runtime: Runtime = "onnx",
    dtype: str = "float32",
    dense_dtype: str | None = None,
    repeats: int = 9,
    threads: int | None = None,
    clock: Clock = "wall",
    peak: bool = True,
) -> list[Comparison]:
    """`compare` of one dense model with several others, {name: model}, all taking turns in one run.

    The names stand in ``Comparison.small.name``; the dense times are the same in every result.
    """
    threads = threads or available_threads()
    if clock == "cpu" and threads != 1:
        raise ValueError('clock="cpu" adds up the time of all threads, waiting ones too: use it with threads=1')
    sources = [("dense", dense, dense_dtype or dtype), *((name, source, dtype) for name, source in others.items())]
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder, contextlib.ExitStack() as stack:
        sides = [
            prepare(source, Path(folder) / str(index), runtime, kind, batch, length)
            for index, (_, source, kind) in enumerate(sources)
        ]
        workers = [
            stack.enter_context(Worker(name, {"threads": threads, **side.command}))
            for (name, _, _), side in zip(sources, sides, strict=True)
        ]
        timings = alternate(workers, repeats=repeats, clock=clock)
    best = matmul_peak(threads, clock, runtime) if peak else None
    machine = this_machine(threads)
    return [
        Comparison(
            batch=batch,
            length=length,
            runtime=runtime,
            dtype=side.dtype if side.dtype == sides[0].dtype else f"{sides[0].dtype} → {side.dtype}",
            dense=timings[0],
            small=timing,
            dense_flops=sides[0].flops(batch, length),
            small_flops=side.flops(batch, length),
            peak_gflops=best,
            clock=clock,
            machine=machine,
        )
        for timing, side in zip(timings[1:], sides[1:], strict=True)
    ]


def matmul_peak(threads: int | None = None, clock: Clock = "wall", runtime: Runtime = "onnx") -> float:
    """GFLOP/s of a 2048³ float32 matrix product in the same runtime: what the machine gives to a plain product."""
    command: dict[str, Any] = {"kind": "matmul", "size": PEAK_SIZE, "dtype": "float32"}
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder:
        if runtime == "onnx":
            command = one_product(Path(folder))
        with Worker("matmul", {"threads": threads or available_threads(), **command}) as worker:
            return 2 * PEAK_SIZE**3 / min(worker.time(2, 7, clock)) / 1e9
