"""Places to write to, checked before the work begins and not after it."""

from __future__ import annotations

import os
from pathlib import Path

from bpc.terminal.errors import CommandError


def check_directory(option: str, directory: Path, model: Path | None = None) -> None:
    """Raise `CommandError` where ``directory`` cannot be written to, or is the ``model`` that is read."""
    if directory.exists() and not directory.is_dir():
        raise CommandError(f"{option} {directory} is a file; give a directory")
    if model is not None and model.exists() and directory.exists() and directory.samefile(model):
        raise CommandError(
            f"{option} {directory} is the model itself, which would be overwritten; give another directory"
        )
    _check_writable(option, directory)


def check_file(option: str, file: Path | None) -> None:
    """Raise `CommandError` where ``file`` (None: not asked for) cannot be written; makes the directory it goes to."""
    if file is None:
        return
    if file.is_dir():
        raise CommandError(f"{option} {file} is a directory; give the name of a file")
    _check_writable(option, file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)


def _check_writable(option: str, directory: Path) -> None:
    nearest = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise CommandError(f"{option} {directory}: {nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise CommandError(f"{option} {directory}: {nearest} is not writable")
