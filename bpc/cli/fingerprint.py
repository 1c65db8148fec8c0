"""What a run of `bpc prune` was started with: a file beside its checkpoints, which ``--resume`` compares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bpc.hub.load import WEIGHT_FILES
from bpc.terminal.errors import CommandError
from bpc.writing import write_text

FILE = "run.json"


def digest_of_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """sha256 of data as read: the same for another file with the same rows in the same order."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=_digest_of_image).encode() + b"\n")
    return found.hexdigest()


def _digest_of_image(image: Any) -> str:
    return hashlib.sha256(image.mode.encode() + image.tobytes()).hexdigest()


def digest_of_weights(directory: Path) -> str:
    """sha256 of a model directory's weight files."""
    found = hashlib.sha256()
    for file in sorted({file for pattern in WEIGHT_FILES for file in directory.glob(pattern)}):
        found.update(f"{file.name} {digest_of_file(file)}\n".encode())
    return found.hexdigest()


def digest_of(path: Path) -> str:
    """sha256 of a file, or of a directory's weight files."""
    return digest_of_file(path) if path.is_file() else digest_of_weights(path)


def digest_of_file(file: Path) -> str:
    """sha256 of one file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_same_run(out: Path, run: Mapping[str, Any], resume: bool, name: str = FILE) -> None:
    """Write what a new run starts with; of one that goes on, raise `CommandError` for what is no longer the same.

    ``run``: {what it is called to the user: its value, as JSON}. Outputs of versions that wrote no such file go on.
    """
    file = out / name
    if resume and file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = [what for what, value in run.items() if before.get(what, value) != value]
        if changed:
            told = " and ".join(_told(what, before[what]) for what in changed)
            raise CommandError(
                f"--resume: the run in {out} was started with other {told}; "
                "give what it was started with, or start another in a new --out"
            )
    elif not resume:
        write_text(file, json.dumps(run, indent=1))


def _told(what: str, before: Any) -> str:
    """With the earlier value, unless that is a digest."""
    is_digest = isinstance(before, str) and len(before) == 64
    return what if is_digest else f"{what} ({json.dumps(before, ensure_ascii=False)})"
