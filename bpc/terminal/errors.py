"""Turning errors that are the user's to mend into one message and an exit code."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import typer

from bpc import ranks
from bpc.terminal.events import tell_end
from bpc.terminal.options import DEBUG
from bpc.terminal.signals import Terminated, terminable

FAILED, WRONG, DIFFERENT, BUG, INTERRUPTED, TERMINATED = 1, 2, 3, 70, 130, 143


class CommandError(Exception):
    """Something the user can mend; the message says what and how."""


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Print known errors without a traceback, and exit with the code the help text promises.

    Of several ranks the first says how a run ended; the others only what they alone met with, and their number.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with terminable():
                command(*args, **kwargs)
        except Terminated:
            _say("terminated", "yellow", of_all=True)
            raise _left(TERMINATED, "terminated") from None
        except KeyboardInterrupt:
            _say("interrupted", "yellow", of_all=True)
            raise _left(INTERRUPTED, "interrupted") from None
        except typer.Exit as left:
            tell_end(left.exit_code)
            raise
        except (typer.Abort, typer.BadParameter) as error:
            tell_end(WRONG, str(error))
            raise
        except ranks.FirstFailed:
            raise typer.Exit(FAILED) from None
        except Exception as error:
            code = _exit_code(error)
            if DEBUG.get():
                traceback.print_exception(error)
            if code is None:
                _say(
                    f"unexpected {type(error).__name__}: {error}\nThis is a bug of bpc, or of a library under it: "
                    "please report it with what `bpc --debug …` prints",
                    "red",
                )
                raise _left(BUG, f"{type(error).__name__}: {error}") from error
            _say(f"error: {error}", "red")
            raise _left(code, str(error)) from None

    return run


def _say(text: str, colour: str, *, of_all: bool = False) -> None:
    if ranks.is_first():
        typer.secho(text, fg=colour, err=True)
    elif not of_all:
        typer.secho(f"rank {ranks.rank()}: {text}", fg=colour, err=True)


def _left(code: int, message: str) -> typer.Exit:
    tell_end(code, message)
    return typer.Exit(code)


def _exit_code(error: Exception) -> int | None:
    from bpc.directory import LoadError
    from bpc.emit.check import ExportError
    from bpc.errors import MendableError
    from bpc.hub.note import NoteError
    from bpc.spec import SpecError
    from passes import MaskError, TraceError, VerificationError
    from passes.plan.errors import ModuleViewError

    if isinstance(error, VerificationError | ExportError):
        return DIFFERENT
    mendable = CommandError | SpecError | MaskError | NoteError | TraceError | LoadError | ModuleViewError | OSError
    if isinstance(error, mendable | MendableError):
        return FAILED
    return None
