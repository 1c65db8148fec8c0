"""Help in narrow and wide terminals."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from bpc.terminal.help import WIDE, ReadableCommand, ReadableGroup

app = typer.Typer(cls=ReadableGroup)


@app.command(cls=ReadableCommand)
def first(an_option_of_a_long_name: Annotated[float, typer.Option(min=0, help="What it is for. " * 5)] = 0) -> None:
    """The first."""


@app.command()
def second() -> None:
    """The second."""


@pytest.mark.parametrize(("width", "panels"), [(50, False), (WIDE - 1, False), (WIDE, True)])
def test_narrow_terminals_get_text_in_which_no_name_is_cut(
    width: int, panels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERMINAL_WIDTH", str(width))
    for words in ([], ["first"]):
        shown = CliRunner().invoke(app, [*words, "--help"]).output
        assert ("╭" in shown) == panels
        assert "…" not in shown
    assert "--an-option-of-a-long-name" in shown
