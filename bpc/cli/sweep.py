"""``bpc sweep``: many runs of `bpc prune` over a recipe's ``[sweep]``, and which of them no other beats."""

from __future__ import annotations

import functools
from typing import Any

import typer

from bpc.cli.prune import prune
from bpc.cli.recipes import SWEEP
from bpc.terminal.console import quiet_console
from bpc.terminal.errors import CommandError, reports_errors


@reports_errors
@functools.partial(functools.update_wrapper, wrapped=prune, assigned=("__annotations__",))
def sweep(context: typer.Context, **options: Any) -> None:
    """Try what the [sweep] table of a recipe says: each trial is a run of `bpc prune` in OUT/trial-NNN.

    [sweep] gives options of `bpc prune`, or keys of its spec, a list of values or a range each, as in
    { low = 1, high = 9, log = true }, and says how many `trials` there are; without it all combinations are tried.
    All other options are those of every trial, --minutes too.

    OUT/sweep.json and OUT/pareto.png show the metric on --eval against the speed-up of every trial, and the front: the
    trials that no other beats in both. Choosing uses these data up: report the metric on others (`bpc eval`).

    Interrupted or killed, the same command with --resume finishes the trial it was in and goes on. A trial that fails
    is kept with its reason; then the exit code is 1.
    """
    from bpc import ranks
    from bpc.cli.space import read_space
    from bpc.terminal.lock import claim_directory
    from bpc.terminal.output import check_directory

    if ranks.count() > 1:
        raise CommandError(
            f"bpc sweep runs one trial after the other in one process, and was started in {ranks.count()}: start it "
            "without a launcher, or single trials with one (bpc prune)"
        )
    recipe, out = options["recipe"], options["out"]
    if options["family"] is not None:
        raise CommandError("bpc sweep tries single runs: vary target_speedup in [sweep], and leave --family out")
    table = context.meta.get(SWEEP)
    if table is None:
        given = "give a recipe that has one" if recipe is None else f"{recipe} has none"
        raise CommandError(f"bpc sweep reads the [sweep] table of a recipe: {given}")
    try:
        from bpc.cli.sweeping import Sweeping
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise CommandError('bpc sweep needs Optuna: pip install "block-pruning-compiler[sweep]"') from None
    console = quiet_console()
    check_directory("--out", out, options["model"])
    claim_directory(context, "--out", out)
    sweeping = Sweeping(context, read_space(context, table, recipe), console)
    if options["dry_run"]:
        sweeping.explain()
    else:
        sweeping.work()
