"""Which way a run of `bpc prune` goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpc.cli.choices import Choices
from bpc.cli.learning import Learning
from bpc.cli.leftovers import ORIGINAL, may_resume, remove_checkpoints
from bpc.cli.recovering import Recovering
from bpc.cli.targets import target_among

if TYPE_CHECKING:
    from rich.console import Console

    from bpc.cli.origin import Origin
    from bpc.cli.pruning import Pruning


def run_of(given: Mapping[str, Any], console: Console, origin: Origin | None = None) -> Pruning:
    """The run that all parameters of the command describe; ``origin``: of a stage of a family."""
    way = Recovering if given["one_shot"] else Learning
    return way(Choices.among(given), target_among(given), console, origin)


def one_original(given: Mapping[str, Any], out: Path, console: Console) -> Path:
    """The directory of the original, fine-tuned once for several runs, in ``out``, unless it is there already."""
    original = out / ORIGINAL
    if not (original / "config.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        resume = may_resume(out)
        run_of({**given, "out": out, "resume": resume, "force": not resume}, console).fine_tune()
        remove_checkpoints(out)
    return original
