"""``bpc bench``: dense against small, in time and in arithmetic."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from bpc.bench.cases import check_threads, parse_shape, runs
from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.events import LogJson, tell
from bpc.terminal.options import dtype_named, is_screen, write_json

# Defaults of repeatable options; typer reads them, nothing writes them.
_SHAPES, _RUNTIMES, _DTYPES = ["8x64"], ["onnx"], ["float32"]


@reports_errors
def bench(
    dense: Annotated[Path, typer.Option(help="The model before: a directory, or an .onnx file `bpc export` wrote.")],
    small: Annotated[Path, typer.Option(help="The model after, likewise.")],
    shape: Annotated[
        list[str], typer.Option(help="Batch and length, e.g. 8x128; give it several times for several shapes.")
    ] = _SHAPES,
    runtime: Annotated[
        list[str],
        typer.Option(
            help="onnx, openvino, eager or compiled; cudagraphs with --device cuda. Several times for several."
        ),
    ] = _RUNTIMES,
    dtype: Annotated[
        list[str],
        typer.Option(
            help="Of both sides: float32; int8 (onnx, openvino); bfloat16, float16 (torch, CUDA; openvino: bfloat16)."
        ),
    ] = _DTYPES,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dense_dtype: Annotated[str | None, typer.Option(help="Of the model before, where it is to be another.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each side; they take turns.")] = 9,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default all.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also show the time per operator (onnx).")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw speed-up against arithmetic ratio, with the paper's points (.png).")
    ] = None,
    to_json: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file, too; -: print only them.")
    ] = None,
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Time both models at every shape, under every runtime and dtype, beside the ratio of their arithmetic."""
    from rich.progress import Progress

    from bpc.bench.comparison import compare
    from bpc.bench.plot import speedup_figure
    from bpc.bench.profile import profile_table
    from bpc.bench.published import published_points
    from bpc.bench.sides import READ_FILES, written_dtype
    from bpc.cli.fingerprint import digest_of
    from bpc.results import bench_result
    from bpc.results.comparison import Comparison, comparison_table, fastest_lines
    from bpc.terminal.output import check_file
    from bpc.timing.alternate import BenchmarkError
    from bpc.writing import new_file

    console = quiet_console()
    if not is_screen(to_json):
        check_file("--json", to_json, dense, small)
    check_file("--plot", plot, dense, small)
    check_threads(threads)
    shapes = [parse_shape(text) for text in shape]
    cases = runs(runtime, [dtype_named(d) for d in dtype], dense_dtype and dtype_named(dense_dtype), device)
    if profile and not any(name == "onnx" for name, _ in cases):
        raise CommandError("--profile shows ONNX Runtime's operators; add --runtime onnx")
    if profile and device != "cpu":
        raise CommandError("--profile shows the operators of the CPU provider; leave --device out")
    found: list[Comparison] = []
    profiles = []
    with (
        tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task("loading", total=len(cases) * len(shapes))
        graphs = [source(path) for path in (dense, small)]
        for name, kind in cases:
            progress.update(task, description=f"{name} {kind}: preparing")
            sides = graphs
            if name in READ_FILES:
                kinds = [written_dtype(name, k) for k in (dtype_named(dense_dtype or kind), kind)]
                sides = [
                    as_file(side, Path(folder) / f"{index}-{kinds[index]}.onnx", kinds[index], device)
                    for index, side in enumerate(graphs)
                ]
            for batch, length in shapes:
                progress.update(task, description=f"{name} {kind} {batch}x{length}")
                try:
                    comparison = compare(
                        *sides,
                        batch=batch,
                        length=length,
                        runtime=name,  # type: ignore[arg-type]
                        dtype=kind,
                        dense_dtype=dense_dtype and dtype_named(dense_dtype),
                        repeats=repeats,
                        threads=threads,
                        peak=not found,
                        device=device,  # type: ignore[arg-type]
                    )
                except (ValueError, BenchmarkError) as error:
                    raise CommandError(str(error)) from error
                found.append(comparison)
                if profile and name == "onnx":
                    profiles.append(profile_table(sides[0], sides[1], batch, length, threads, comparison.dtype))
                progress.advance(task)
                what = f"{name} {kind} {batch}x{length}"
                tell("step", phase="timing", step=len(found), total=progress.tasks[task].total, what=what)
    if not is_screen(to_json):
        console.print(comparison_table(found))
        for line in fastest_lines(found):
            console.print(line)
        for table in profiles:
            console.print(table)
    inputs = {side: digest_of(path) for side, path in (("original", dense), ("small", small))}
    write_json(to_json, bench_result(found, {"repeats": repeats, "device": device}, inputs).to_json)
    if plot is not None:
        with new_file(plot) as staged:
            speedup_figure(found, published_points()).savefig(staged, dpi=150)


def source(path: Path) -> Any:
    """What `bpc.bench.compare` takes: the path of an .onnx file, or the graph of a model directory."""
    if path.suffix == ".onnx":
        if not path.is_file():
            raise CommandError(f"{path} does not exist")
        return path
    from bpc.cli.models import load_graph

    return load_graph(path)


def as_file(side: Any, path: Path, dtype: str, device: str) -> Path:
    """An .onnx file of one side, written once for all shapes."""
    if isinstance(side, Path):
        return side
    if path.exists():
        return path
    from bpc.emit.onnx import export_onnx

    return export_onnx(side, path, device, dtype).path  # type: ignore[arg-type]
