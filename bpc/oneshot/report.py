"""What one-shot pruning chose, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bpc.costs import Costs
from bpc.notebook import line, table
from bpc.oneshot.target import Target


@dataclass(frozen=True)
class Choice:
    """Units of one sublayer: ``kept`` of ``count``, and the divergence that this was expected to bring by itself.

    ``values``, ``keys``: dims of every head that stay, None where all do.
    """

    name: str
    weight: str
    unit: str  # "head" or "dim"
    kept: int
    count: int
    loss: float
    values: int | None = None
    keys: int | None = None


@dataclass(frozen=True, repr=False)
class OneShotReport:
    """The target, the choice for every sublayer, and what was measured.

    ``divergence``: of the small model's outputs from the original's on ``examples`` of the calibration data (nats per
    row for class scores, else squared error over variance). ``speedup``: measured, None where the target was none.
    ``seconds`` by phase. ``prices``: seconds by units kept, where the target was a speed-up.
    """

    target: Target
    choices: tuple[Choice, ...]
    examples: int
    divergence: float
    speedup: float | None
    expected_cost: float
    original_cost: float
    unit: str
    seconds: Mapping[str, float]
    prices: Costs | None = None

    def __repr__(self) -> str:
        kept = sum(c.kept for c in self.choices)
        return f"OneShotReport({self.target}, {kept:,} units kept, divergence {self.divergence:.4f})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = ((c.weight, c.unit, f"{c.kept:,}", f"{c.count:,}") for c in self.choices)
        words = "".join(map(line, str(self).splitlines()))
        return words + table(("weight", "unit", "kept", "of"), rows, "every sublayer")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; without the tables of prices."""
        found = asdict(replace(self, prices=None))
        del found["prices"]
        return found

    def __str__(self) -> str:
        units: dict[str, list[Choice]] = {}
        for choice in self.choices:
            units.setdefault(choice.unit, []).append(choice)
        lines = [f"target: {self.target}"]
        for unit, chosen in units.items():
            kept, count = sum(c.kept for c in chosen), sum(c.count for c in chosen)
            by_layer = " ".join(str(c.kept) for c in chosen)
            lines.append(f"{unit}s {count:,} → {kept:,}: {by_layer}")
        if narrowed := [c for c in self.choices if c.values is not None and c.kept]:
            widths = " ".join(f"{c.keys}/{c.values}" for c in narrowed)
            lines.append(f"dims of queries and keys/values of a head, where fewer: {widths}")
        speed = "" if self.speedup is None else f"measured {self.speedup:.2f}× as fast; "
        lines.append(
            f"{speed}outputs diverge by {self.divergence:.4f} on {self.examples} calibration examples "
            f"({sum(self.seconds.values()):.0f} s in all)"
        )
        return "\n".join(lines)
