"""Places to write to, checked before the work begins and not after it."""

from __future__ import annotations

import os
from pathlib import Path

from bpc.terminal.errors import CommandError

_PRODUCTS = (".onnx", ".png", ".svg", ".pdf")  # no loader reads them


def check_directory(option: str, directory: Path, model: Path | None = None) -> None:
    """Raise `CommandError` where ``directory`` cannot be written to, or holds the ``model`` that is read or another."""
    check_place(option, directory, model)
    from bpc.directory import holds_other_model

    if holds_other_model(directory):
        raise CommandError(
            f"{option} {directory} holds a model that bpc did not write, which would be overwritten; give another "
            "directory, or remove it first"
        )


def check_place(option: str, directory: Path, model: Path | None = None) -> None:
    """Raise `CommandError` where ``directory`` cannot be written to, or is the one of the ``model`` that is read."""
    if directory.exists() and not directory.is_dir():
        raise CommandError(f"{option} {directory} is a file; give a directory")
    if model is not None and model.exists() and directory.exists() and directory.samefile(model):
        raise CommandError(
            f"{option} {directory} is the model itself, which would be overwritten; give another directory"
        )
    _check_writable(option, directory)


def check_file(option: str, file: Path | None, *read: Path | None) -> None:
    """Raise `CommandError` where ``file`` (None: not asked for) cannot be written; makes the directory it goes to.

    ``read``: files and directories that the command reads. Of their files only products (.onnx, .png) are replaced.
    """
    if file is None:
        return
    if file.is_dir():
        raise CommandError(f"{option} {file} is a directory; give the name of a file")
    places = [file.resolve(), *file.resolve().parents]
    for source in read if file.is_file() else ():
        if source is not None and (found := source.resolve()) in places:
            if found == places[0]:
                raise CommandError(f"{option} {file} is what is read, and would be overwritten; give another file")
            if places[0].suffix not in _PRODUCTS:
                raise CommandError(
                    f"{option} {file} is one of the files of {source} and would be overwritten; give another name"
                )
    _check_writable(option, file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)


def _check_writable(option: str, directory: Path) -> None:
    nearest = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise CommandError(f"{option} {directory}: {nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise CommandError(f"{option} {directory}: {nearest} is not writable")
