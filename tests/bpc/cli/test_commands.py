"""What all commands share."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bpc.cli.commands import run


@pytest.mark.parametrize(
    "command", [[], ["prune"], ["inspect"], ["shrink"], ["trim-vocab"], ["verify"], ["export"], ["bench"]]
)
def test_every_command_has_help(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = "import bpc.cli, sys; assert 'torch' not in sys.modules, 'torch'"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "bpc", "frobnicate"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "frobnicate" in done.stderr
