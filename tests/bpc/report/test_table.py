"""The summary as a table."""

from __future__ import annotations

import io

from rich.console import Console

from bpc.report.layers import Summary
from bpc.report.table import pruning_table


def test_no_digit_is_lost_on_a_narrow_terminal(summary: Summary) -> None:
    console = Console(width=36, file=io.StringIO(), color_system=None)
    console.print(pruning_table(summary))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
