"""The summary as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from bpc.report.layers import COLUMNS, Summary


def pruning_table(summary: Summary) -> Table:
    """Heads, FFN dims and weights that are left, layer by layer."""
    table = Table(title="what is left")
    for column in COLUMNS:
        table.add_column(column, justify="right", overflow="fold")  # narrow terminals: no digit is lost
    *layers, total = summary.rows()
    for row in layers:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total, style="bold")
    return table
