"""Tables on terminals of any width."""

from __future__ import annotations

import io
import logging

import pytest
import transformers
from rich.console import Console
from rich.table import Table

from bpc.terminal import console as terminal


def test_no_column_is_left_out_on_a_narrow_terminal() -> None:
    table = Table("name", "value")
    table.add_row("n" * 50, "v" * 50)
    console = Console(width=30, file=io.StringIO())
    terminal.print_whole(console, table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "n" * 50 in shown
    assert "v" * 50 in shown


def test_output_that_is_no_terminal_has_a_width_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    verbosity = transformers.logging.get_verbosity()
    try:
        assert terminal.quiet_console().width == terminal.WIDTH_WITHOUT_TERMINAL
        assert transformers.logging.get_verbosity() == logging.ERROR
    finally:
        transformers.logging.set_verbosity(verbosity)
