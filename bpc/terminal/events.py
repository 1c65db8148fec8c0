"""Progress for programs: ``--log-json FILE`` adds a JSON object a line for every phase, step and end of a command.

What every line has: ``time`` (UTC, ISO 8601) and ``event``, one of

    start   command, version, options
    phase   name, total steps where they are known (and the step a resumed run begins at)
    step    phase, step, total, and in training the numbers of its log
    done    phase, seconds
    note    text
    end     exit_code, seconds, message where there was an error
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from bpc import ranks

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


class _Log:
    """A file, and the run it is of. Its first line waits for the second: by then all options are known."""

    def __init__(self, file: Path, context: typer.Context) -> None:
        self.file = file.open("a", buffering=1, encoding="utf-8")
        self.started, self.now = time.perf_counter(), _now()
        self.context: typer.Context | None = context

    def write(self, event: str, data: Mapping[str, Any]) -> None:
        if (context := self.context) is not None:
            self.context = None
            options = {name: value for name, value in context.params.items() if name != "log_json"}
            said = {"command": context.info_name, "version": version("block-pruning-compiler"), "options": options}
            self._add({"time": self.now, "event": "start", **said})
        self._add({"time": _now(), "event": event, **data})

    def _add(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(_plain(line), allow_nan=False) + "\n")


_LOG: ContextVar[_Log | None] = ContextVar("log_json", default=None)


def _open(context: typer.Context, file: Path | None) -> Path | None:
    if context.resilient_parsing or not ranks.is_first():
        return file
    try:
        _LOG.set(None if file is None else _Log(file, context))
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    context.call_on_close(lambda: tell_end(0))
    return file


# Every long command takes it; who has something to tell calls `tell`.
LogJson: TypeAlias = Annotated[
    Path | None,
    typer.Option("--log-json", callback=_open, help="Add progress to this file, a JSON object a line."),
]


def tell(event: str, **data: Any) -> None:
    """Add a line to the log, if there is one. A disk that is full ends the log, and not the run."""
    log = _LOG.get()
    if log is None:
        return
    try:
        log.write(event, data)
    except OSError:
        _LOG.set(None)


def tell_end(code: int, message: str = "") -> None:
    """The last line of a run, whichever comes first: what went wrong, or that the command is done."""
    log = _LOG.get()
    if log is not None:
        seconds = round(time.perf_counter() - log.started, 3)
        tell("end", exit_code=code, seconds=seconds, **({"message": message} if message else {}))
        _LOG.set(None)
        with contextlib.suppress(OSError):
            log.file.close()


@contextlib.contextmanager
def phase(console: Console, name: str) -> Iterator[Status]:
    """A phase without steps: a status on the terminal, and in the log where it begins and ends."""
    with console.status(name) as status, told(name):
        yield status


@contextlib.contextmanager
def told(name: str, total: int | None = None) -> Iterator[None]:
    """A phase in the log alone; ``done`` is missing where it was left by an error."""
    started = time.perf_counter()
    tell("phase", name=name, total=total)
    yield
    tell("done", phase=name, seconds=round(time.perf_counter() - started, 3))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plain(value: Any) -> Any:
    """As JSON has it: what is neither number nor text by its text, and numbers that JSON lacks as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
