"""One run at a time writes to a place: a lock of the operating system, which a process that died does not hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer
from filelock import FileLock, Timeout

from bpc.terminal.errors import CommandError
from bpc.writing import is_device

NAME = ".bpc-lock"


def claim_directory(command: typer.Context, option: str, directory: Path) -> None:
    """Keep other runs of bpc from writing to a directory, made if missing, until the command ends.

    Raises `CommandError` where another run has it.
    """
    command.with_resource(_held(option, directory, directory.resolve() / NAME))


def claim_file(command: typer.Context, option: str, file: Path) -> None:
    """The same for a file that is to be written; devices and pipes take what they get."""
    if is_device(file):
        return
    place = file.resolve()
    command.with_resource(_held(option, file, place.with_name(f".{place.name}{NAME}")))


@contextlib.contextmanager
def _held(option: str, what: Path, file: Path) -> Iterator[None]:
    made = [folder for folder in file.parents if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file, timeout=0):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)  # before it is released: whoever opened it meanwhile looks again
    except Timeout:
        raise CommandError(
            f"{option} {what}: another run of bpc is writing there; wait until it has ended, or give another place"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # one that holds something by now
            for folder in made:
                folder.rmdir()
