"""``bpc inspect``: what a spec matches, before anything is trained; what masks do to each head and dim, after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bpc.cli.model_option import model_option
from bpc.cli.trust import TrustCode
from bpc.terminal.console import print_whole, quiet_console
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.options import is_screen, write_json


@reports_errors
def inspect(
    model: Annotated[Path, model_option("Model directory (config.json, model.safetensors)")],
    spec: Annotated[str, typer.Option(help="Preset name, or a TOML, YAML or JSON file.")] = "hybrid",
    every_weight: Annotated[bool, typer.Option("--every-weight", help="One row per weight.")] = False,
    masks: Annotated[
        Path | None, typer.Option(help="Masks or block scores: explain each head and FFN dim instead of a spec.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="For block scores: kept where σ(S) is above this.")] = None,
    zeros: Annotated[bool, typer.Option("--zeros", help="Explain from the zeros in the weights.")] = False,
    to_json: Annotated[
        Path | None, typer.Option("--json", help="Write the explanation to this file, too; -: print only that.")
    ] = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Show which linears a spec masks and in which blocks; with --masks, what becomes of each head and dim, and why."""
    from bpc.cli.models import load_graph, mask_source
    from bpc.spec import explain, load_spec, resolve
    from bpc.terminal.output import check_file
    from passes.explain import explain as explain_masks
    from passes.structure.roles import find_roles

    console = quiet_console()
    source = mask_source(masks, threshold)
    if not is_screen(to_json):
        check_file("--json", to_json, model, masks)
    if masks is None and not zeros:
        if to_json is not None:
            raise CommandError("--json writes what becomes of heads and dims: give --masks, or --zeros")
        rules = load_spec(spec)
        with console.status("loading and tracing"):
            roles = find_roles(load_graph(model))
        print_whole(console, explain(rules, roles, resolve(rules, roles), every_weight=every_weight))
        return
    with console.status("analysing"):
        explanation = explain_masks(load_graph(model), source)
    if not is_screen(to_json):
        console.print(str(explanation))
    write_json(to_json, lambda: json.dumps(explanation.to_data(), indent=1))
