"""The summary as a table."""

from __future__ import annotations

import io

from rich.console import Console

from bpc.report.summary import Summary
from bpc.report.table import pruning_table, rows


def test_table_ends_with_the_totals(summary: Summary) -> None:
    assert rows(summary)[0][:3] == ("0", "2 / 4", "5 / 24")
    assert rows(summary)[-1][:3] == ("all", "6 / 8", "29 / 48")


def test_no_digit_is_lost_on_a_narrow_terminal(summary: Summary) -> None:
    console = Console(width=36, file=io.StringIO(), color_system=None)
    console.print(pruning_table(summary))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
