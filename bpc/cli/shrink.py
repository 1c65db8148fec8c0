"""``bpc shrink``: masks and a model become a smaller dense model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import reports_errors


@reports_errors
def shrink(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="Model directory (config.json, model.safetensors).")],
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
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Add a Python file that loads the model without bpc.")
    ] = False,
    trust_remote_code: TrustCode = False,
) -> None:
    """Remove what the masks leave dead, exactly: heads, FFN dims, whole layers. Constants are folded into biases."""
    import passes
    from bpc.cli.models import keep_processors, load_model, load_tokenizer, mask_source, save_tokenizer
    from bpc.dense import DenseModel
    from bpc.inputs import example_inputs
    from bpc.scores.files import multiply_masks
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory
    from passes.ir.info import trace_info
    from passes.masks import resolve_masks

    console = quiet_console()
    check_directory("--out", out, model)
    claim_directory(context, "--out", out)
    source = mask_source(masks, threshold)
    with console.status("loading"):
        network, tokenizer = load_model(model, masks_follow=source is not None), load_tokenizer(model)
    with console.status("tracing"):
        graph = passes.trace(network, example_inputs(network, tokenizer))
        found = resolve_masks(graph, source)
    with console.status("analysing, rewriting and verifying"):
        aliases = trace_info(graph).aliases
        tied = {name: found[canonical] for name, canonical in aliases.items() if canonical in found}
        result = passes.shrink(graph, found | tied, verify=verify, tolerance=tolerance, multiple=multiple)
        multiply_masks(network, found)
        dense = DenseModel.from_shrink(result, network)
        dense.save_pretrained(out, standalone=standalone)
    if tokenizer is not None:
        save_tokenizer(tokenizer, out)
    keep_processors(model, out)
    console.print(str(result.report))
    console.print(f"{dense.describe_module()}\nwritten to {out}")
