"""``bpc shrink``: masks and a model become a smaller dense model."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from bpc.cli.model_option import model_option
from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.events import LogJson, phase, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

    from bpc.results import Figure, Result
    from bpc.streaming.shrink import Streamed
    from passes.masks import MaskSource


@reports_errors
def shrink(
    context: typer.Context,
    model: Annotated[Path, model_option("Model directory (config.json, model.safetensors)")],
    out: Annotated[Path, typer.Option(help="Where the small model goes; made if missing.")],
    masks: Annotated[
        Path | None,
        typer.Option(help="Masks (safetensors, bool tensors) or block scores; default: the zeros in the weights."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="For block scores: kept where σ(S) is above this (the run's final threshold).")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Run both models and compare.")] = True,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest relative difference; default by dtype.")
    ] = None,
    multiple: Annotated[
        int, typer.Option(min=1, help="Keep zeros until counts of FFN and head dims divide by this.")
    ] = 1,
    stream: Annotated[
        bool, typer.Option("--stream", help="Never hold the model: tensor by tensor, from files to files.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="With --stream: run both models whole too, a layer in memory at a time.")
    ] = False,
    max_shard_size: Annotated[str, typer.Option(help="With --stream: of the files that are written.")] = "5GB",
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Add a Python file that loads the model without bpc.")
    ] = False,
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Remove what the masks leave dead, exactly: heads, FFN dims, whole layers. Constants are folded into biases.

    --stream is for models that do not fit in memory. It compares sampled layers instead of running both models (--whole
    runs them too, which reads them again), and after a kill the same command goes on from the last file that was whole.
    """
    import passes
    from bpc.cli.models import keep_processors, load_model, load_tokenizer, mask_source, save_tokenizer
    from bpc.dense import DenseModel
    from bpc.inputs import example_inputs
    from bpc.results import agreement_figures, layer_figures, size_figures, with_small
    from bpc.scores.files import multiply_masks
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory
    from passes.ir.info import trace_info
    from passes.masks import resolve_masks

    console = quiet_console()
    check_directory("--out", out, model)
    claim_directory(context, "--out", out)
    source = mask_source(masks, threshold)
    if whole and not (stream and verify):
        raise CommandError("--whole goes with --stream, and not with --no-verify; without --stream both are run anyway")
    if stream:
        if tolerance is not None:
            raise CommandError("--tolerance is for whole runs; --stream compares layers by what rounding costs them")
        hashed = _beside(lambda: _inputs(model, masks))
        streamed = _stream(model, source, out, multiple, max_shard_size, verify, whole, standalone, console)
        figures = [*size_figures(*streamed.modules), *layer_figures(streamed.layers, streamed.whole)]
        _note(figures, hashed.result(), threshold, multiple).write(out / "result.json")
        return
    with phase(console, "loading"):
        network, tokenizer = load_model(model, masks_follow=source is not None), load_tokenizer(model)
    with phase(console, "tracing"):
        graph = passes.trace(network, example_inputs(network, tokenizer))
        found = resolve_masks(graph, source)
    with phase(console, "analysing, rewriting and verifying"):
        aliases = trace_info(graph).aliases
        tied = {name: found[canonical] for name, canonical in aliases.items() if canonical in found}
        sizes = size_figures(network, None)
        result = passes.shrink(graph, {**found, **tied}, verify=verify, tolerance=tolerance, multiple=multiple)
        multiply_masks(network, found)
        dense = DenseModel.from_shrink(result, network)
        dense.save_pretrained(out, standalone=standalone)
        figures = [*with_small(sizes, dense.module), *agreement_figures(result.report.agreement)]
        _note(figures, _inputs(model, masks), threshold, multiple).write(out / "result.json")
    if tokenizer is not None:
        save_tokenizer(tokenizer, out)
    keep_processors(model, out)
    console.print(str(result.report))
    console.print(f"{dense.describe_module()}\nwritten to {out}")


def _note(figures: Sequence[Figure], inputs: Mapping[str, str], threshold: float | None, multiple: int) -> Result:
    from bpc.results import Result

    settings = {"threshold": threshold, "multiple": multiple}
    return Result(command="shrink", figures=list(figures), settings=settings, inputs=dict(inputs))


def _inputs(model: Path, masks: Path | None) -> dict[str, str]:
    from bpc.cli.fingerprint import digest_of, digest_of_weights

    return {"weights": digest_of_weights(model)} | ({"masks": digest_of(masks)} if masks else {})


def _beside(work: Callable[[], dict[str, str]]) -> Future[dict[str, str]]:
    """Have it done while the model is traced, by a thread that nobody waits for where the command fails."""
    future: Future[dict[str, str]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever asks for the result would wait for ever
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _stream(
    model: Path,
    source: MaskSource,
    out: Path,
    multiple: int,
    max_shard_size: str,
    verify: bool,
    whole: bool,
    standalone: bool,
    console: Console,
) -> Streamed:
    from bpc.cli.models import keep_processors, load_shell, load_tokenizer, save_tokenizer
    from bpc.inputs import example_inputs
    from bpc.streaming import stream_shrink

    with phase(console, "planning and writing") as status:

        def writing(file: str, number: int, total: int) -> None:
            status.update(f"{file} ({number + 1} of {total})")
            tell("step", phase="planning and writing", step=number + 1, total=total, what=file)

        shell, tokenizer = load_shell(model, masks_follow=source is not None), load_tokenizer(model)
        done = stream_shrink(
            shell,
            model,
            source,
            out,
            example_inputs(shell, tokenizer),
            multiple=multiple,
            max_shard_size=max_shard_size,
            verify=verify,
            whole=whole,
            standalone=standalone,
            step=writing,
        )
    if tokenizer is not None:
        save_tokenizer(tokenizer, out)
    keep_processors(model, out)
    console.print(f"{done}\nwritten to {out}")
    return done
