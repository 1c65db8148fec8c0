"""How many units each sublayer keeps: the least loss within a budget, by dynamic programming.

    minimise Σ_s loss_s(k_s)   subject to   fixed + Σ_s cost_s(k_s) ≤ budget

Losses are taken to add up over sublayers (as in Kwon et al. 2022, Frantar & Alistarh 2022); costs do by their making.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bpc.oneshot.ladders import Ladder
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import TargetError

_BINS = 4000  # of the budget


@dataclass(frozen=True)
class Costs:
    """What a model costs: ``fixed`` plus, for each sublayer by name, ``tables[name][kept units]`` (0 … its count).

    ``unit`` says what is counted: "parameters", "bytes", "s".
    """

    fixed: float
    tables: Mapping[str, np.ndarray]
    unit: str

    def total(self, kept: Mapping[str, int] | None = None) -> float:
        """The cost with so many units kept; None: all of them."""
        return self.fixed + sum(float(table[-1 if kept is None else kept[name]]) for name, table in self.tables.items())


def choices(sublayer: Sublayer, multiple: int) -> list[int]:
    """Counts that a sublayer may keep: of dims multiples of ``multiple``, of heads any number; all and none always."""
    step = multiple if sublayer.size == 1 else 1
    return sorted({*range(0, sublayer.count + 1, step), sublayer.count})


def search(
    sublayers: Sequence[Sublayer], ladders: Mapping[str, Ladder], costs: Costs, budget: float, *, multiple: int = 8
) -> dict[str, int]:
    """{sublayer name: units to keep}. Keeps everything where the budget allows it.

    Raises `TargetError` for a budget below what cannot be pruned.
    """
    room = budget - costs.fixed
    least = sum(float(costs.tables[s.name].min()) for s in sublayers)
    if room < least:
        raise TargetError(
            f"a budget of {budget:.4g} {costs.unit} is less than the {costs.fixed + least:.4g} {costs.unit} that stay "
            "when every head and dim has gone"
        )
    if budget >= costs.total():
        return {s.name: s.count for s in sublayers}
    bin_size = max(room, 1e-9 * costs.total()) / _BINS
    best = np.zeros(_BINS + 1)
    picks: list[tuple[np.ndarray, list[int], list[int]]] = []
    for sublayer in sublayers:
        counts = choices(sublayer, multiple)
        losses = ladders[sublayer.name].loss(counts)
        spent = [int(np.ceil(costs.tables[sublayer.name][k] / bin_size - 1e-9)) for k in counts]
        table, pick = np.full(_BINS + 1, np.inf), np.zeros(_BINS + 1, dtype=int)
        for index, (loss, bins) in enumerate(zip(losses, spent, strict=True)):
            if bins > _BINS:
                continue
            candidate = np.full(_BINS + 1, np.inf)
            candidate[bins:] = best[: _BINS + 1 - bins] + loss
            better = candidate < table
            table[better], pick[better] = candidate[better], index
        best = table
        picks.append((pick, counts, spent))
    kept, left = {}, _BINS
    for sublayer, (pick, counts, spent) in zip(reversed(sublayers), reversed(picks), strict=True):
        index = int(pick[left])
        kept[sublayer.name] = counts[index]
        left -= spent[index]
    return {s.name: kept[s.name] for s in sublayers}
