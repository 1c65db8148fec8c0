"""Figures of what pruning without training chose."""

from __future__ import annotations

from bpc.oneshot.report import OneShotReport
from bpc.results import Figure, Value


def one_shot_figures(report: OneShotReport) -> list[Figure]:
    """What pruning without training counted on, and how far outputs moved."""
    moved = Figure(
        name="divergence of the outputs",
        unit="1",
        small=Value(value=report.divergence),
        better="lower",
        sample=f"{report.examples:,} calibration examples",
    )
    cost = Figure(
        name=f"expected cost ({report.unit})",
        unit="1",
        original=Value(value=report.original_cost),
        small=Value(value=report.expected_cost),
        better="lower",
    )
    return [moved, cost]
