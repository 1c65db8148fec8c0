"""Where bpc writes files: complete or not at all, on the target's own file system, and over files only.

What is written is staged in a hidden directory beside its place, below symbolic links and mount points, and renamed
from there. Where several files belong together, those that say so (`keystones`) go first and come last: a reader finds
the old files, the new ones, or that there is nothing to read. A run that was killed leaves its hidden directory behind;
the next one that writes to the same place takes it away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]

STAGED = ".bpc-staged-"


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path of the same name to write to, which becomes ``path`` when the block ends without an error.

    Symbolic links are followed. A device or a pipe (``/dev/stdout``) is written to and stays what it is. Raises
    IsADirectoryError for a directory.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file")
    if is_device(path):
        with tempfile.TemporaryDirectory(prefix="bpc-") as folder:
            staged = Path(folder) / Path(path).name
            yield staged
            with staged.open("rb") as source, open(path, "wb") as device:
                shutil.copyfileobj(source, device)
        return
    with new_files(target.parent) as folder:
        yield folder / target.name


def is_device(path: str | os.PathLike[str]) -> bool:
    """Something is there that is neither a file nor a directory; a pipe's links lead to no path."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


@contextlib.contextmanager
def new_files(
    directory: str | os.PathLike[str], *, keystones: Sequence[str] = (), replaces: Sequence[str] = ()
) -> Iterator[Path]:
    """A directory to write to, whose files move into ``directory`` when the block ends without an error.

    ``keystones``: names without which nobody takes the files for whole, the most telling last. They are removed before
    the first file moves, and come after all others; a single file is simply replaced. ``replaces``: patterns of what
    an earlier write may have left there, and goes if this one does not write it. Other files stay. Missing directories
    are made. Raises NotADirectoryError for a file, and FileExistsError before anything is moved where a directory or a
    device has the name of a new file.
    """
    target = Path(os.path.realpath(directory))
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{directory} is a file; give a directory")
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    target.mkdir(parents=True, exist_ok=True)
    try:
        with _staging(target) as staged:
            yield staged
            _move(staged, target, keystones, replaces)
    except BaseException:
        with contextlib.suppress(OSError):  # one that is not empty by now
            for folder in made:
                folder.rmdir()
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8); see `new_file`."""
    with new_file(path) as staged:
        staged.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A directory in ``target`` that is locked while its process lives; those of dead processes are removed."""
    for leftover in target.glob(f"{STAGED}*"):
        _remove_if_dead(leftover)
    name = secrets.token_hex(6)
    fresh = target / f".bpc-new-{name}"
    fresh.mkdir()
    lock = _lock(fresh)
    staged = fresh.rename(target / f"{STAGED}{name}")  # by this name only once it is locked
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the lock on a directory; None where another has it, or nothing can be locked."""
    if fcntl is None:
        return None
    descriptor = -1
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return None
    return descriptor


def _remove_if_dead(leftover: Path) -> None:
    lock = _lock(leftover)
    if lock is not None:
        shutil.rmtree(leftover, ignore_errors=True)
        os.close(lock)


def _move(staged: Path, target: Path, keystones: Sequence[str], replaces: Sequence[str]) -> None:
    names = sorted(file.relative_to(staged) for file in staged.rglob("*") if not file.is_dir())
    last = [Path(name) for name in keystones]
    names = [name for name in names if name not in last] + [name for name in last if name in names]
    stale = {old.relative_to(target) for pattern in replaces for old in target.glob(pattern)} - {*names}
    for name in (*names, *stale):
        place = target / name
        if place.exists() and not place.is_file():
            raise FileExistsError(f"{place} is not a file: it is not replaced; move it away, or write elsewhere")
    default = _file_mode(staged)
    for name in names:  # libraries make files that only their owner can read
        place = target / name
        os.chmod(staged / name, place.stat().st_mode & 0o777 if place.is_file() else default)
    if len(names) > 1 or stale:
        for name in reversed(last):
            (target / name).unlink(missing_ok=True)
    for name in sorted(stale):
        (target / name).unlink(missing_ok=True)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged / name, target / name)


def _file_mode(directory: Path) -> int:
    """What the umask gives a new file. Asking for it means setting it, for all threads; a file tells too."""
    probe = directory / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode
