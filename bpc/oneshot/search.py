"""How many units each sublayer keeps: the least loss within a budget, by dynamic programming.

    minimise Σ_s loss_s(k_s)   subject to   fixed + Σ_s cost_s(k_s) ≤ budget

Losses are taken to add up over sublayers (as in Kwon et al. 2022, Frantar & Alistarh 2022); costs do by their making.
Of an attention whose heads may be narrowed, a choice is (heads k, dims v of values, dims q of queries and keys), with

    loss = loss(k) + k/K · (loss_values(v) + loss_keys(q)),   cost = cost(k) · (1 - a·(1 - v/D) - b·(1 - q/D))

for the shares a, b of its cost that values and keys bear.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bpc.costs import Costs, Widths
from bpc.oneshot.ladder import Ladder, Width
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import TargetError

_BINS = 4000  # of the budget


@dataclass(frozen=True)
class Selection:
    """``kept``: {sublayer: units}; ``widths``: of attentions that keep some heads, and those narrower."""

    kept: dict[str, int]
    widths: dict[str, Widths] = field(default_factory=dict)


def choices(sublayer: Sublayer, multiple: int) -> list[int]:
    """Counts that a sublayer may keep: of dims multiples of ``multiple``, of heads any number; all and none always."""
    step = multiple if sublayer.size == 1 else 1
    return sorted({*range(0, sublayer.count + 1, step), sublayer.count})


def widths(ladder: Ladder, multiple: int, alike: bool) -> list[Widths | None]:
    """How wide heads may be: None, as they are, first. ``alike``: values as wide as queries and keys."""
    known = [width for width in (ladder.values, ladder.keys) if width is not None]
    if not known or (alike and len(known) < 2):
        return [None]
    dims = known[0].dims

    def options(width: Width | None) -> list[int]:
        if width is None:
            return [dims]
        return [d for d in range(multiple, dims, multiple) if d >= min(width.losses)] + [dims]

    values, keys = options(ladder.values), options(ladder.keys)
    pairs = [(v, v) for v in values if v in keys] if alike else list(itertools.product(values, keys))
    return [None, *(Widths(v, k, dims) for v, k in pairs if (v, k) != (dims, dims))]


@dataclass(frozen=True)
class _Option:
    count: int
    width: Widths | None
    loss: float
    bins: int


def _options(
    sublayer: Sublayer, ladder: Ladder, costs: Costs, bin_size: float, multiple: int, alike: bool
) -> list[_Option]:
    counts = choices(sublayer, multiple)
    losses = ladder.loss(counts)
    found = []
    for width in widths(ladder, multiple, alike):
        extra, shares = 0.0, (1.0, 1.0)
        if width is not None:
            extra = sum(w.loss(d) for w, d in ((ladder.values, width.values), (ladder.keys, width.keys)) if w)
            shares = width.values / width.dims, width.keys / width.dims
        for count, loss in zip(counts, losses, strict=True):
            if count or width is None:
                bins = int(np.ceil(costs.of(sublayer.name, count, *shares) / bin_size - 1e-9))
                found.append(_Option(count, width, float(loss) + extra * count / sublayer.count, bins))
    return found


def search(
    sublayers: Sequence[Sublayer],
    ladders: Mapping[str, Ladder],
    costs: Costs,
    budget: float,
    *,
    multiple: int = 8,
    alike: bool = True,
) -> Selection:
    """Units to keep, and widths of heads; everything where the budget allows it.

    ``multiple``: of FFN dims, and of dims inside heads. Raises `TargetError` for a budget below what cannot be pruned.
    """
    room = budget - costs.fixed
    least = sum(float(costs.tables[s.name].min()) for s in sublayers)
    if room < least:
        raise TargetError(
            f"a budget of {budget:.4g} {costs.unit} is less than the {costs.fixed + least:.4g} {costs.unit} that stay "
            "when every head and dim has gone"
        )
    if budget >= costs.total():
        return Selection({s.name: s.count for s in sublayers})
    bin_size = max(room, 1e-9 * costs.total()) / _BINS
    best = np.zeros(_BINS + 1)
    picks: list[tuple[np.ndarray, list[_Option]]] = []
    for sublayer in sublayers:
        options = _options(sublayer, ladders[sublayer.name], costs, bin_size, multiple, alike)
        table, pick = np.full(_BINS + 1, np.inf), np.zeros(_BINS + 1, dtype=int)
        for index, option in enumerate(options):
            if option.bins > _BINS:
                continue
            candidate = np.full(_BINS + 1, np.inf)
            candidate[option.bins :] = best[: _BINS + 1 - option.bins] + option.loss
            better = candidate < table
            table[better], pick[better] = candidate[better], index
        best = table
        picks.append((pick, options))
    chosen, left = {}, _BINS
    for sublayer, (pick, options) in zip(reversed(sublayers), reversed(picks), strict=True):
        chosen[sublayer.name] = option = options[int(pick[left])]
        left -= option.bins
    return Selection(
        {s.name: chosen[s.name].count for s in sublayers},
        {s.name: width for s in sublayers if (width := chosen[s.name].width) is not None},
    )
