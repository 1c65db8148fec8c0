"""``bpc bench``: dense against small, in time and in arithmetic."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from bpc.cli.console import quiet_console
from bpc.cli.errors import CommandError, reports_errors


@reports_errors
def bench(
    dense: Annotated[Path, typer.Option(help="The model before: a directory, or an .onnx file `bpc export` wrote.")],
    small: Annotated[Path, typer.Option(help="The model after, likewise.")],
    shape: Annotated[
        list[str], typer.Option(help="Batch and length, e.g. 8x128; give it several times for several shapes.")
    ] = ["8x64"],  # noqa: B006  (typer reads the default, nothing writes it)
    runtime: Annotated[list[str], typer.Option(help="onnx, eager or compiled; several times for several.")] = ["onnx"],  # noqa: B006
    dtype: Annotated[str, typer.Option(help="Of the ONNX files written from directories.")] = "float32",
    repeats: Annotated[int, typer.Option(help="Timed runs of each side; they take turns.")] = 9,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default all.")] = None,
    to_json: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Time both models at every shape under every runtime, beside the ratio of their arithmetic."""
    from rich.progress import Progress

    from bpc.bench.compare import compare
    from bpc.bench.result import Comparison, comparison_table
    from bpc.bench.timing import BenchmarkError

    console = quiet_console()
    shapes = [parse_shape(text) for text in shape]
    for name in runtime:
        if name not in ("onnx", "eager", "compiled"):
            raise CommandError(f"--runtime {name}: choose onnx, eager or compiled")
    found: list[Comparison] = []
    with (
        tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task("loading", total=len(runtime) * len(shapes))
        graphs = [source(path) for path in (dense, small)]
        for name in runtime:
            progress.update(task, description=f"{name}: preparing")
            sides = graphs
            if name == "onnx":
                sides = [as_file(side, Path(folder) / f"{i}.onnx", dtype) for i, side in enumerate(graphs)]
            for batch, length in shapes:
                progress.update(task, description=f"{name} {batch}x{length}")
                try:
                    comparison = compare(
                        *sides,
                        batch=batch,
                        length=length,
                        runtime=name,  # type: ignore[arg-type]
                        dtype=dtype,
                        repeats=repeats,
                        threads=threads,
                        peak=not found,
                    )
                except (ValueError, BenchmarkError) as error:
                    raise CommandError(str(error)) from error
                found.append(comparison)
                progress.advance(task)
    console.print(comparison_table(found))
    if to_json is not None:
        to_json.write_text(json.dumps([comparison.to_dict() for comparison in found], indent=1))


def parse_shape(text: str) -> tuple[int, int]:
    """(batch, length) of "8x128". Raises `CommandError`."""
    batch, _, length = text.partition("x")
    if not (batch.isdigit() and length.isdigit() and int(batch) and int(length)):
        raise CommandError(f"--shape {text}: write batch x length, e.g. 8x128")
    return int(batch), int(length)


def source(path: Path) -> Any:
    """What `bpc.bench.compare` takes: the path of an .onnx file, or the graph of a model directory."""
    if path.suffix == ".onnx":
        if not path.is_file():
            raise CommandError(f"{path} does not exist")
        return path
    from bpc.cli.models import load_graph

    return load_graph(path)


def as_file(side: Any, path: Path, dtype: str) -> Path:
    """An .onnx file of one side, written once for all shapes."""
    if isinstance(side, Path):
        return side
    from bpc.emit.onnx import export_onnx

    return export_onnx(side, path, dtype=dtype).path  # type: ignore[arg-type]
