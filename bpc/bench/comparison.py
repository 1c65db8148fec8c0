"""`compare`: dense against small at one batch and length; `compare_all`: against several models in the same run."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bpc.bench.sides import PEAK_SIZE, READ_FILES, Device, Runtime, Side, one_product, prepare, require_device
from bpc.emit.flops import FlopModel
from bpc.emit.onnx import FLOPS_KEY
from bpc.results.comparison import Comparison, this_machine
from bpc.timing.alternate import Clock, Timing, Worker, alternate, available_threads


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
    device: Device = "cpu",
) -> Comparison:
    """Time ``dense`` against ``small`` at one batch and length, beside the ratio of their arithmetic.

    Args:
        dense, small: ``.onnx`` files that `bpc.export_onnx` wrote ("onnx", "openvino"), or what `bpc.export_onnx`
            takes: traced graphs, shrink results, dense models. Graphs are exported to temporary files with the same
            defaults.
        batch, length: sizes of the ``batch`` and ``sequence`` axes.
        runtime: "onnx" (ONNX Runtime, a plain session), "eager" or "compiled" (torch), "openvino" (reads the same
            files; "bfloat16" is its precision hint on a float32 file); on CUDA also "cudagraphs", which is compiled
            with ``mode="reduce-overhead"``.
        dtype: "float32"; on the CPU "int8" for ONNX files written from graphs (files are what they are); "bfloat16" and
            "float16" under torch, see `bpc.emit.half`, and on CUDA.
        dense_dtype: of the dense side, where it is another.
        repeats: timed runs of each side, at least 7; the sides take turns, each in a process of its own.
        threads: CPU threads of each side; default all this process may use.
        clock: "wall", or "cpu" (with threads=1): CPU seconds of the side's process, for machines that are busy.
        peak: also measure what a plain matrix product reaches: in float32 on the CPU, in ``dtype`` on CUDA.
        device: "cpu", or "cuda": inputs and outputs stay on the GPU; torch is timed with events, ONNX Runtime until its
            outputs are there.

    Returns a `Comparison`: ``.speedup``, ``.arithmetic_ratio``, ``.efficiency``, ``.dense``/``.small`` (seconds), a
    rich table when printed. Raises ValueError for files whose arithmetic is unknown (not written by bpc), for dtypes
    the runtime does not have and devices that are not there, `bpc.timing.alternate.BenchmarkError` where a side cannot
    run.
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
        device=device,
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
    device: Device = "cpu",
) -> list[Comparison]:
    """`compare` of one dense model with several others, {name: model}, all taking turns in one run.

    The names stand in ``Comparison.small.name``; the dense times are the same in every result.
    """
    threads = threads or available_threads()
    if clock == "cpu" and threads != 1:
        raise ValueError('clock="cpu" adds up the time of all threads, waiting ones too: use it with threads=1')
    require_device(device, runtime)
    sources = [("dense", dense, dense_dtype or dtype), *((name, source, dtype) for name, source in others.items())]
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder:
        sides = [
            prepare(source, Path(folder) / str(index), runtime, kind, batch, length, device)
            for index, (_, source, kind) in enumerate(sources)
        ]
        work = [_flops(source, side)(batch, length) for (_, source, _), side in zip(sources, sides, strict=True)]
        names = [name for name, _, _ in sources]
        timings = _take_turns(names, sides, threads=threads, device=device, repeats=repeats, clock=clock)
    best = matmul_peak(threads, clock, runtime, device, dtype) if peak else None
    machine = this_machine(threads, device)
    return [
        Comparison(
            batch=batch,
            length=length,
            runtime=runtime,
            dtype=side.dtype if side.dtype == sides[0].dtype else f"{sides[0].dtype} → {side.dtype}",
            dense=timings[0],
            small=timing,
            dense_flops=work[0],
            small_flops=flops,
            peak_gflops=best,
            clock=clock,
            machine=machine,
        )
        for timing, side, flops in zip(timings[1:], sides[1:], work[1:], strict=True)
    ]


def time_models(
    models: Mapping[str, Any],
    *,
    batch: int = 8,
    length: int = 64,
    runtime: Runtime = "onnx",
    dtype: str = "float32",
    repeats: int = 9,
    threads: int | None = None,
    clock: Clock = "wall",
) -> dict[str, Timing]:
    """Times of several models on the CPU, taking turns: {name: `Timing`}. Options as for `compare`.

    Nothing is rated and no file is checked: for probes, whose arithmetic and outputs do not matter.
    """
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder:
        sides = [
            prepare(source, Path(folder) / str(index), runtime, dtype, batch, length, check=False)
            for index, source in enumerate(models.values())
        ]
        timings = _take_turns(
            list(models), sides, threads=threads or available_threads(), device="cpu", repeats=repeats, clock=clock
        )
    return {timing.name: timing for timing in timings}


def _take_turns(
    names: Sequence[str], sides: Sequence[Side], *, threads: int, device: Device, repeats: int, clock: Clock
) -> list[Timing]:
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(name, {"threads": threads, "device": device, **side.command}))
            for name, side in zip(names, sides, strict=True)
        ]
        return alternate(workers, repeats=repeats, clock=clock)


def _flops(source: Any, side: Side) -> FlopModel:
    if side.flops is not None:
        return side.flops
    if isinstance(source, str | os.PathLike):
        raise ValueError(f"{source} does not say what arithmetic it does ({FLOPS_KEY}): write it with bpc.export_onnx")
    raise ValueError("the arithmetic of this graph is no polynomial of batch and length; bpc cannot rate it")


def matmul_peak(
    threads: int | None = None,
    clock: Clock = "wall",
    runtime: Runtime = "onnx",
    device: Device = "cpu",
    dtype: str = "float32",
) -> float:
    """GFLOP/s of a square matrix product: what the machine gives to a plain product.

    On the CPU 2048³ in float32, in the same runtime; on CUDA 8192³ in ``dtype``, under torch.
    """
    size = PEAK_SIZE if device == "cpu" else 4 * PEAK_SIZE
    command: dict[str, Any] = {"kind": "matmul", "size": size, "dtype": "float32" if device == "cpu" else dtype}
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder:
        if runtime in READ_FILES and device == "cpu":
            command = {**one_product(Path(folder)), "kind": runtime}
        command |= {"threads": threads or available_threads(), "device": device}
        with Worker("matmul", command) as worker:
            return 2 * size**3 / min(worker.time(2, 7, clock)) / 1e9
