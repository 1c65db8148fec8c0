"""Benchmarks as commands: ``python -m bpc.bench published --id 19``, ``python -m bpc.bench profile A.onnx B.onnx``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bpc.bench.result import Comparison

app = typer.Typer(help="Benchmarks of bpc itself.", no_args_is_help=True, add_completion=False)

# Defaults of repeatable options; typer reads them, nothing writes them.
_MODELS = [19]
_SHAPES = ["8x128", "4x384", "1x128"]
_DTYPES = ["float32"]


@app.command()
def published(
    number: Annotated[
        list[int], typer.Option("--id", help="Published model, by id; several times for several.")
    ] = _MODELS,
    shape: Annotated[list[str], typer.Option(help="Batch x length; several times for several.")] = _SHAPES,
    dtype: Annotated[list[str], typer.Option(help="Of the small model's file; the dense one is float32.")] = _DTYPES,
    plain: Annotated[bool, typer.Option("--plain", help="Also time plain torch.onnx.export files of both.")] = False,
    repeats: Annotated[int, typer.Option(help="Timed runs of each side.")] = 15,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default all.")] = None,
    clock: Annotated[str, typer.Option(help="wall, or cpu (with --threads 1) on a busy machine.")] = "wall",
    to_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the figure (PNG) here.")] = None,
) -> None:
    """Rebuild BERT-base with the paper's published shapes, export dense and small, time them."""
    from bpc.bench.compare import compare
    from bpc.bench.plot import speedup_figure
    from bpc.bench.published import bert_base, published_model, rebuild
    from bpc.bench.result import comparison_table
    from bpc.emit.onnx import export_onnx
    from bpc.emit.recipe import PLAIN

    console = Console()
    sizes = [_shape(text) for text in shape]
    models = [published_model(n) for n in number]
    found: list[Comparison] = []
    names: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bpc-bench-") as folder:
        dense = bert_base()
        dense_file = export_onnx(dense, Path(folder) / "dense.onnx", check=False).path
        plain_dense = None
        if plain:
            plain_dense = export_onnx(dense, Path(folder) / "plain-dense.onnx", recipe=PLAIN, check=False).path
        for model in models:
            small = rebuild(dense, model)
            pairs = [
                (dense_file, export_onnx(small, Path(folder) / f"small-{kind}.onnx", dtype=kind).path, kind)  # type: ignore[arg-type]
                for kind in dtype
            ]
            if plain_dense is not None:
                path = export_onnx(small, Path(folder) / "plain-small.onnx", recipe=PLAIN, check=False).path
                pairs.append((plain_dense, path, "float32, plain export"))
            for before, after, kind in pairs:
                rows = [
                    compare(
                        before,
                        after,
                        batch=batch,
                        length=length,
                        dtype=kind,
                        repeats=repeats,
                        threads=threads,
                        clock=clock,  # type: ignore[arg-type]
                        peak=not found and (batch, length) == sizes[0],
                    )
                    for batch, length in sizes
                ]
                found += rows
                table = comparison_table(rows)
                table.title = f"model {model.id} ({model.method}, published {model.speedup:.2f}×), {kind}"
                console.print(table)
                names[f"{model.id}"] = (rows[0].arithmetic_ratio, model.speedup)
    if to_json is not None:
        to_json.write_text(json.dumps([c.to_dict() for c in found], indent=1))
    if plot is not None:
        speedup_figure(found, names).savefig(plot, dpi=150)


@app.command()
def profile(
    dense: Annotated[Path, typer.Argument(help="The dense model's file.")],
    small: Annotated[Path, typer.Argument(help="The small model's file.")],
    shape: Annotated[str, typer.Option(help="Batch x length.")] = "8x128",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default all.")] = None,
) -> None:
    """Time per operator, dense and small side by side."""
    from bpc.bench.profile import profile_table

    Console().print(profile_table(dense, small, *_shape(shape), threads=threads))


def _shape(text: str) -> tuple[int, int]:
    batch, _, length = text.partition("x")
    if not (batch.isdigit() and length.isdigit() and int(batch) and int(length)):
        raise typer.BadParameter(f"{text!r} is not batch x length, e.g. 8x128")
    return int(batch), int(length)


if __name__ == "__main__":
    app()
