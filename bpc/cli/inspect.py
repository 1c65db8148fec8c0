"""``bpc inspect``: what a spec matches, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpc.cli.console import quiet_console
from bpc.cli.errors import reports_errors


@reports_errors
def inspect(
    model: Annotated[Path, typer.Option(help="Model directory (config.json, model.safetensors).")],
    spec: Annotated[str, typer.Option(help="Preset name, or a TOML, YAML or JSON file.")] = "hybrid",
    masks: Annotated[
        Path | None, typer.Option(help="Masks (safetensors): say what would be cut, and what not.")
    ] = None,
    every_weight: Annotated[bool, typer.Option("--every-weight", help="One row per weight.")] = False,
) -> None:
    """Show which linears a spec masks, in which blocks, and which it leaves alone; with --masks, what they remove."""
    from bpc.cli.models import load_graph
    from bpc.spec import explain, load_spec, resolve
    from passes.analysis.roles import find_roles

    console = quiet_console()
    rules = load_spec(spec)
    with console.status("loading and tracing"):
        graph = load_graph(model)
        roles = find_roles(graph)
    if masks is None:
        console.print(explain(rules, roles, resolve(rules, roles), every_weight=every_weight))
        return
    from passes import shrink
    from passes.explain import explain as explain_masks

    with console.status("analysing"):
        units = explain_masks(graph, masks)
        result = shrink(graph, masks)
    console.print(str(units), highlight=False)
    console.print(str(result.report))
