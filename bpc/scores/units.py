"""The units that a compiler can take out of an attention or FFN, and the threshold at which each of them goes.

Every block of a weight has a level (`BlockMask.levels`): it is kept while its level lies above the threshold. A feature
of a weight (a row, or a column) lives as long as its best block, and a dim as long as all of what it is made of:

    level(dim) = min over the weights that share it of max over the blocks in its row or column

    FFN        dim i: row i of up and gate, column i of down
    attention  value dim d of head h: row of value, column of output; score dim d: row of query and row of key

A head lives as long as any of its value dims, and keeps a score dim, be it of zeros. The heads of a layer are stored in
one matrix, so that all that live are
as wide as the widest of them: what narrower ones lack is zeros, which cost as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LevelsOf = Callable[[str, int], Tensor | None]  # (weight, stored dim) -> levels of its features; None: none can go


@dataclass(frozen=True, eq=False)
class Features:
    """Where the dims of a block's units lie in one weight: ``index`` int64 (units, heads of a unit, dims).

    ``dim``: the weight's stored dim that ``index`` counts. One head where the heads of a unit share the features.
    """

    weight: str
    dim: int
    index: Tensor


@dataclass(frozen=True, eq=False)
class Units:
    """One attention or FFN. ``values``: what its units are made of; ``scores``: queries and keys that may shrink.

    A unit is a head (several where they share a key and value head), or an FFN dim, which is a head with one dim.
    """

    name: str
    family: str
    count: int
    values: tuple[Features, ...]
    scores: tuple[Features, ...] = ()

    def levels(self, levels_of: LevelsOf) -> UnitLevels:
        """Levels of the dims, from those of the weights' features."""
        return UnitLevels(_least(self.values, levels_of), _least(self.scores, levels_of) if self.scores else None)


@dataclass(frozen=True, eq=False)
class UnitLevels:
    """``values`` and ``scores``: (units, dims) levels."""

    values: np.ndarray
    scores: np.ndarray | None

    def kept(self, threshold: float) -> tuple[int, float, float]:
        """Units above ``threshold``, and the share of a unit's value and score dims that the widest of them has."""
        alive = self.values.max(1) > threshold
        count = int(alive.sum())
        if not count or self.values.shape[1] == 1:
            return count, 1.0, 1.0
        if self.scores is None:
            return count, _widest(self.values[alive], threshold), 1.0
        return count, _widest(self.values[alive], threshold), _widest(self.scores[alive], threshold)


def _widest(levels: np.ndarray, threshold: float) -> float:
    return max(1.0, float((levels > threshold).sum(1).max())) / levels.shape[1]


def _least(features: Sequence[Features], levels_of: LevelsOf) -> np.ndarray:
    """(units, dims): a dim goes with the first of what it is made of; of a unit's heads the last counts."""
    least: Tensor | None = None
    for own in features:
        levels = levels_of(own.weight, own.dim)
        if levels is not None:
            found = levels[own.index.to(levels.device)]
            least = found if least is None else torch.minimum(least, found)
    if least is None:
        units, _, dims = features[0].index.shape
        return np.full((units, dims), np.inf)
    return least.amax(1).cpu().numpy()
