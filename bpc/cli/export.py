"""``bpc export``: a model directory, small or not, becomes an ONNX file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bpc.cli.model_option import model_option
from bpc.cli.trust import TRUSTED, TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import reports_errors
from bpc.terminal.events import LogJson, phase
from bpc.terminal.options import dtype_named

if TYPE_CHECKING:
    from rich.console import Console

    from bpc.emit.onnx import OnnxExport

# Those of `bpc.emit`, which takes seconds to import; a test compares them.
Target = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16", "int8", "fp32", "bf16", "fp16"]
Embeddings = Literal["float32", "int8", "int4"]
Storage = Literal["float32", "float16"]


@reports_errors
def export(
    context: typer.Context,
    model: Annotated[Path, model_option("Model directory: what `bpc shrink` or `bpc prune` wrote, or any other")],
    out: Annotated[
        Path,
        typer.Option(help="The .onnx file to write, or a directory for it."),
    ],
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
    generation: Annotated[
        bool, typer.Option("--generation", help="Files that take and give back keys and values of earlier tokens.")
    ] = False,
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Write the model as ONNX, in the form that is fastest for the target, with batch and sequence dynamic."""
    from bpc.emit.onnx import export_onnx

    console = quiet_console()
    options: dict[str, Any] = {
        "target": target, "dtype": dtype_named(dtype), "embeddings": embeddings, "storage": storage, "check": check,
    }  # fmt: skip
    if generation:
        _for_generation(context, console, model, out, options)
        return
    from bpc.cli.models import load_graph
    from bpc.terminal.lock import claim_file
    from bpc.terminal.output import check_file

    if out.is_dir():
        out = out / "model.onnx"
    check_file("--out", out, model)
    claim_file(context, "--out", out)
    with phase(console, "loading and tracing"):
        graph = load_graph(model)
    with phase(console, "exporting"):
        written = export_onnx(graph, out, **options)
    _report(console, written)


def _for_generation(context: typer.Context, console: Console, model: Path, out: Path, options: dict[str, Any]) -> None:
    """The files, and beside them what makes tokens of texts, sounds and chats."""
    from bpc.cli.models import keep_processors, load_model, load_tokenizer, save_tokenizer
    from bpc.dense import load
    from bpc.directory import is_dense_directory
    from bpc.emit.generation import export_generation
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_place

    check_place("--out", out, model)
    claim_directory(context, "--out", out)
    small = model.is_dir() and is_dense_directory(model)
    with phase(console, "loading"):
        source: Any = load(model, trust_remote_code=TRUSTED.get()) if small else load_model(model)
    with phase(console, "tracing and exporting"):
        export = partial(source.export_onnx, generation=True) if small else partial(export_generation, source)
        written = export(out, **options)
    if (tokenizer := load_tokenizer(model)) is not None:
        save_tokenizer(tokenizer, out)
    keep_processors(model, out)
    for file in written.files.values():
        _report(console, file)


def _report(console: Console, written: OnnxExport) -> None:
    console.print(f"{written.path}: {written.path.stat().st_size / 2**20:.1f} MiB")
    if written.agreement is not None:
        shapes = len(written.agreement.shapes)
        console.print(f"checked on {shapes} input shapes: largest difference {written.agreement.max_abs_diff:.2g}")
        for axis, reason in written.agreement.fixed.items():
            console.print(f"{axis} is fixed: {reason}")
    for name, reason in written.kept.items():
        console.print(f"{name} is stored in float32: {reason}")
    if written.not_run:
        console.print(written.not_run)
