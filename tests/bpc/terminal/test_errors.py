"""Exit codes, and which errors are the user's to mend."""

from __future__ import annotations

import pytest
import typer

from bpc.directory import LoadError
from bpc.emit.check import ExportError
from bpc.hub.note import NoteError
from bpc.spec import SpecError
from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.options import DEBUG
from bpc.terminal.signals import Terminated
from passes import MaskError, VerificationError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("say what"), 1),
        (SpecError("say what"), 1),
        (MaskError("say what"), 1),
        (LoadError("say what"), 1),
        (NoteError("say what"), 1),
        (PermissionError("say what"), 1),
        (VerificationError("say what"), 3),
        (ExportError("say what"), 3),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
    ],
    ids=lambda value: type(value).__name__,
)
def test_known_errors_are_a_line_and_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        reports_errors(command)()
    assert caught.value.exit_code == code
    said = capsys.readouterr()
    assert said.err.strip() == {130: "interrupted", 143: "terminated"}.get(code, "error: say what")
    assert said.out == ""


def test_faults_of_our_own_are_said_to_be_that(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command(count: int) -> None:
        """What it does."""
        raise ZeroDivisionError(count)

    for debug in (False, True):
        token = DEBUG.set(debug)
        with pytest.raises(typer.Exit) as caught:
            command(count=3)
        DEBUG.reset(token)
        assert caught.value.exit_code == 70
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        said = capsys.readouterr().err
        assert "unexpected ZeroDivisionError: 3\nThis is a bug of bpc" in said
        assert ("Traceback" in said) is debug
    assert command.__doc__ == "What it does."  # typer reads it
