"""``bpc export``: a model directory, small or not, becomes an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import reports_errors

# Those of `bpc.emit`, which takes seconds to import; a test compares them.
Target = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16", "int8"]
Embeddings = Literal["float32", "int8", "int4"]
Storage = Literal["float32", "float16"]


@reports_errors
def export(
    model: Annotated[Path, typer.Option(help="Model directory: what `bpc shrink` or `bpc prune` wrote, or any other.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    target: Annotated[Target, typer.Option(help="What the file is to be fast on.")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Of weights and arithmetic.")] = "float32",
    embeddings: Annotated[
        Embeddings | None,
        typer.Option(help="What embedding tables are stored in.", show_default="int8 with --dtype int8, else float32"),
    ] = None,
    storage: Annotated[
        Storage, typer.Option(help="What the other large float32 weights are stored in; computed in float32.")
    ] = "float32",
    check: Annotated[bool, typer.Option(help="Compare the file with the model on ONNX Runtime.")] = True,
    trust_remote_code: TrustCode = False,
) -> None:
    """Write the model as ONNX, in the form that is fastest for the target, with batch and sequence dynamic."""
    from bpc.cli.models import load_graph
    from bpc.emit.onnx import export_onnx
    from bpc.terminal.output import check_file

    console = quiet_console()
    check_file("--out", out, model)
    with console.status("loading and tracing"):
        graph = load_graph(model)
    with console.status("exporting"):
        written = export_onnx(
            graph, out, target=target, dtype=dtype, embeddings=embeddings, storage=storage, check=check
        )
    console.print(f"{written.path}: {out.stat().st_size / 2**20:.1f} MiB")
    if written.agreement is not None:
        shapes = len(written.agreement.shapes)
        console.print(f"checked on {shapes} input shapes: largest difference {written.agreement.max_abs_diff:.2g}")
        for axis, reason in written.agreement.fixed.items():
            console.print(f"{axis} is fixed: {reason}")
    for name, reason in written.kept.items():
        console.print(f"{name} is stored in float32: {reason}")
    if written.not_run:
        console.print(written.not_run)
