"""``bpc verify``: a small model held against its certificate and the masked model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpc.cli.trust import TrustCode
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.events import LogJson, phase

AGREES, DISAGREES, UNUSABLE = 0, 1, 2


@reports_errors
def verify(
    directory: Annotated[Path, typer.Argument(help="What `bpc shrink` wrote, with its certificate.json.")],
    against: Annotated[
        Path | None, typer.Option(help="The masked model's directory: checks that both compute the same.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="What to mask it with, as for shrink; default: the zeros in its weights.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="For block scores: kept where σ(S) is above this.")] = None,
    reweightings: Annotated[
        int, typer.Option(min=0, help="How often to check again with other numbers in all that is not zero.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of inputs and other numbers.")] = 0,
    log_json: LogJson = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Check a small model against its certificate, with code that has no part in making it.

    Hashes, plan and weights; with --against also every small weight from the masked ones, both models on several inputs
    judged by what rounding costs, and again with random numbers in the weights. Exit codes: 0 all agrees, 1 something
    differs (and is named), 2 it cannot be judged.
    """
    from bpc.cli.models import load_masked
    from bpc.directory import LoadError
    from bpc.verify import Unusable
    from bpc.verify import verify as check
    from passes import MaskError

    console = quiet_console()
    try:
        with phase(console, "verifying"):
            masked = None if against is None else load_masked(against, masks, threshold)
            verdict = check(directory, masked, reweightings=reweightings, seed=seed)
    except (CommandError, LoadError, MaskError, OSError, Unusable) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(UNUSABLE) from None
    console.print(str(verdict), soft_wrap=True)
    raise typer.Exit(AGREES if verdict.agrees else DISAGREES)
