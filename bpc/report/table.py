"""The summary as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from bpc.report.summary import BlockSummary, Layer, Summary

_COLUMNS = ("layer", "heads", "FFN dims", "weights kept", "weights in the small model")


def rows(summary: Summary) -> list[tuple[str, ...]]:
    """A row of text per layer, and a last one with the totals; columns: layer, heads, FFN dims, kept, present."""
    found = [(layer.title.replace("layer ", ""), *_row([layer])) for layer in summary.layers]
    return [*found, ("all", *_row(list(summary.layers)))]


def _row(layers: list[Layer]) -> tuple[str, ...]:
    blocks = [b for layer in layers for b in layer.blocks]
    total = sum(b.parameters for b in blocks)
    return (
        _units([b for b in blocks if b.is_attention]),
        _units([b for b in blocks if not b.is_attention]),
        f"{sum(b.parameters_kept for b in blocks) / max(1, total):.1%}",
        f"{sum(b.parameters_present for b in blocks):,} / {total:,}",
    )


def _units(blocks: list[BlockSummary]) -> str:
    return f"{sum(b.units_left for b in blocks):,} / {sum(b.units for b in blocks):,}" if blocks else "–"


def pruning_table(summary: Summary) -> Table:
    """Heads, FFN dims and weights that are left, layer by layer."""
    table = Table(title="what is left")
    for column in _COLUMNS:
        table.add_column(column, justify="right", overflow="fold")  # narrow terminals: no digit is lost
    *layers, total = rows(summary)
    for row in layers:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total, style="bold")
    return table
