"""What all commands share."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import bpc
from bpc.cli import app
from tests.bpc.cli.commands import run


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([str(command.name)] for command in app.registered_commands),
    ],
)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_command_has_help_that_cuts_nothing(
    command: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERMINAL_WIDTH", str(width))
    for option in ("-h", "--help"):
        result = run(*command, option)
        assert result.exit_code == 0
        assert "Usage:" in result.output
        assert "…" not in result.output


def test_the_version_is_the_installed_ones() -> None:
    assert run("--version").output == f"bpc {version('block-pruning-compiler')}\n" == f"bpc {bpc.__version__}\n"


def test_wrong_numbers_are_refused_before_anything_is_read() -> None:
    for arguments, message in (
        (["bench", "--dense", "a", "--small", "b", "--threads", "9000"], "--threads 9000: this machine has"),
        (["bench", "--dense", "a", "--small", "b", "--shape", "8²x64"], "--shape 8²x64: write batch x length"),
        (["prune", "--model", "a", "--data", "b", "--out", "c", "--epochs", "inf"], "--epochs inf: give a finite"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert message in result.output.replace("\n", " ")


def test_help_imports_nothing_heavy() -> None:
    code = "import bpc.cli, sys; assert 'torch' not in sys.modules, 'torch'"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "bpc", "frobnicate"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "frobnicate" in done.stderr
