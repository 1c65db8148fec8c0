"""What a sublayer loses step by step: its units in the order in which they go, and widths of its heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Width:
    """Fewer dims in all heads of an attention: the basis whose first dims stay, and {dims: divergence of the outputs}.

    ``basis``: (shared heads, dims, dims), float64, for values or queries; see `bpc.oneshot.heads.Heads.turns`.
    """

    basis: Tensor = field(compare=False)
    losses: dict[int, float]

    @property
    def dims(self) -> int:
        """Of a whole head."""
        return self.basis.shape[1]

    def loss(self, dims: int) -> float:
        """As `Ladder.loss`; infinite below what was measured."""
        known = sorted({**self.losses, self.dims: 0.0}.items())
        if dims < known[0][0]:
            return math.inf
        return float(_falling(known, [dims])[0])


@dataclass(frozen=True)
class Ladder:
    """``order``: units, least needed first. ``losses``: {kept units: divergence of the outputs}.

    ``values``, ``keys``: what narrower heads lose, None where they cannot be.
    """

    order: tuple[int, ...]
    losses: dict[int, float]
    values: Width | None = None
    keys: Width | None = None

    def kept(self, count: int) -> Tensor:
        """bool (units): the ``count`` units that go last."""
        mask = torch.zeros(len(self.order), dtype=torch.bool)
        mask[list(self.order[len(self.order) - count :])] = True
        return mask

    def loss(self, counts: Sequence[int]) -> np.ndarray:
        """Loss at each of ``counts``, linear between what was measured, and never less with fewer units."""
        return _falling(sorted({**self.losses, len(self.order): 0.0}.items()), counts)


def _falling(known: Sequence[tuple[int, float]], counts: Sequence[int]) -> np.ndarray:
    values = np.maximum.accumulate([loss for _, loss in reversed(known)])[::-1]
    return np.interp(counts, [count for count, _ in known], values)
