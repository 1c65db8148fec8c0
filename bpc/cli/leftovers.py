"""What runs of `bpc prune` leave in their output directory, and whether another may start or go on there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bpc.cli.fingerprint import FILE as RUN
from bpc.cli.timetable import FILLING, FINE_TUNING, PRUNING, RECOVERY
from bpc.terminal.errors import CommandError
from bpc.train.checkpoints import checkpoints_in, newest_complete

if TYPE_CHECKING:
    from bpc.spec import Spec

CHECKPOINTS = {
    FINE_TUNING: "original-checkpoints",
    PRUNING: "checkpoints",
    RECOVERY: "checkpoints",
    FILLING: "fill-checkpoints",
}
TEACHER = "teacher.safetensors"
ORIGINAL = "original"  # what --dense-epochs fine-tuned
MEASURED, UNTRAINED = "one-shot", "untrained"  # what --one-shot measured, and the small model before its training
SPEC_FILE = "spec.json"


def remove_checkpoints(out: Path) -> None:
    """Those of all runs in ``out``, each several times as large as the model, and what else was kept to go on from."""
    for name in {*CHECKPOINTS.values(), MEASURED, UNTRAINED}:
        shutil.rmtree(out / name, ignore_errors=True)
    (out / TEACHER).unlink(missing_ok=True)


def remove_original(out: Path, *read: Path | None) -> None:
    """The fine-tuned original of an earlier run, which another would take for its own. Raises as `remove_runs`."""
    _remove([out / ORIGINAL], read)


def remove_runs(places: Iterable[Path], *read: Path | None) -> None:
    """Those of ``places`` that a run of `bpc prune` has left; others stay.

    Raises `CommandError`, before anything is removed, where one of the models or files that are ``read`` lies in them.
    """
    _remove([place for place in places if (place / RUN).is_file()], read)


def _remove(directories: Sequence[Path], read: Iterable[Path | None]) -> None:
    gone = {directory.resolve() for directory in directories}
    if lost := next((source for source in read if source and gone & {(s := source.resolve()), *s.parents}), None):
        raise CommandError(
            f"--force would remove {lost}, which is read: copy it to another place, or choose another --out"
        )
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def is_finished(out: Path) -> bool:
    """Whether a run in ``out`` got to its end: the report is its last file."""
    return (out / "result.json").exists() and (out / "report" / "report.html").exists()


def may_resume(out: Path) -> bool:
    """Whether there is a checkpoint in ``out`` that a run can go on from, or what --one-shot measured."""
    pruning, original = out / CHECKPOINTS[PRUNING], out / CHECKPOINTS[FINE_TUNING]
    found = newest_complete(pruning if checkpoints_in(pruning) else original) is not None
    return found or (_has_chosen(out) and not checkpoints_in(pruning))


def _has_chosen(out: Path) -> bool:
    return any((out / name).exists() for name in (MEASURED, UNTRAINED))


def check_place(out: Path, started: Path, kind: str, *, resume: bool, force: bool) -> None:
    """Raise `CommandError` where runs of a ``kind``, which leave the file ``started``, may not begin in ``out``."""
    if resume and not started.exists():
        raise CommandError(f"--resume: {out} holds no {kind}")
    if started.exists() and not (resume or force):
        raise CommandError(
            f"{out} holds a {kind} already: add --resume to go on, --force to start again, or choose another --out"
        )
    if not started.exists() and (out / RUN).exists():
        raise CommandError(f"{out} holds a run of bpc prune; choose another --out")


def check_output(out: Path, spec: Spec, resume: bool, force: bool) -> None:
    """Raise `CommandError` where what is in ``out`` does not fit --resume and --force."""
    from bpc.spec import load_spec

    checkpoints, written = out / CHECKPOINTS[PRUNING], out / SPEC_FILE
    found, earlier = checkpoints_in(checkpoints), checkpoints_in(out / CHECKPOINTS[FINE_TUNING]) or _has_chosen(out)
    if resume and not (found or earlier):
        raise CommandError(f"--resume: {checkpoints} holds no checkpoint")
    if resume and found and newest_complete(checkpoints) is None:
        raise CommandError(f"--resume: {checkpoints} holds no complete checkpoint; remove it to start again")
    if (found or earlier) and not (resume or force):
        raise CommandError(
            f"{checkpoints} holds checkpoints already: add --resume to go on, --force to start again, or choose "
            "another --out"
        )
    if (out / "result.json").exists() and not (resume or force):
        raise CommandError(f"{out} holds the result of a run: add --force to replace it, or choose another --out")
    if resume and written.exists() and load_spec(written) != spec:
        raise CommandError(f"--resume: the run in {out} used another spec ({written}); give that one")
