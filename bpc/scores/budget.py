"""A target in the place of a threshold: what is kept follows from what it costs (docs/decisions/0014-targets.md).

The cost of the structure that the masks leave falls from the whole model's C₀ to the target C₁ along the cubic

    C(p) = C₁ + (C₀ − C₁)·c³,       c as in `bpc.scores.schedule`

and at every step the threshold is the lowest one that costs no more. Once c = 0 the masks are frozen, and the rest of
the run recovers. Scores and prices are the only state, so that a resumed run, and every rank, decides alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bpc.costs import Costs
from bpc.scores.block_mask import BlockMask
from bpc.scores.units import UnitLevels, Units
from passes.structure.role import Family


@dataclass(frozen=True)
class Cut:
    """Levels above which blocks are kept: of FFNs, and of everything else."""

    ffn: float = -np.inf
    others: float = -np.inf

    def of(self, family: str) -> float:
        return self.ffn if family == Family.FFN else self.others


class Budget(nn.Module):
    """What a program may cost. Registered in its `MaskSet`, so that checkpoints hold prices and frozen masks.

    Args:
        units: the attentions and FFNs whose cost depends on masks.
        costs: the price of their units; ``wanted`` in the same unit.
        masks: {weight: its mask}.
    """

    prices: Tensor
    frozen: Tensor
    measured: Tensor

    def __init__(self, units: Sequence[Units], costs: Costs, wanted: float, masks: Mapping[str, BlockMask]) -> None:
        super().__init__()
        self.units = tuple(units)
        self.unit = costs.unit
        self._masks = dict(masks)
        # One tensor, so that checkpoints, and ranks that timed the model each for itself, agree on the prices.
        tables = [np.array([wanted, costs.fixed])]
        tables += [np.array([*costs.shares.get(u.name, (0.0, 0.0)), *costs.tables[u.name]]) for u in self.units]
        self.register_buffer("prices", torch.from_numpy(np.concatenate(tables).astype(np.float64)))
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))
        self.register_buffer("measured", torch.zeros((), dtype=torch.int64))  # rounds of measuring, for who does it
        for weight, mask in masks.items():
            self.register_buffer(_frozen_name(weight), torch.ones(mask.plan.grid, dtype=torch.bool))
        self._frozen = False  # the same as a bool: read every step, without waiting for a device
        self._now = Cut()
        self._final: tuple[object, Cut] | None = None

    # ---- prices ----------------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> float:
        """The target's cost."""
        return float(self.prices[0])

    def costs(self) -> Costs:
        """Prices as the checkpoint, or rank 0, has them."""
        flat, start = self.prices.cpu().numpy(), 2
        tables, shares = {}, {}
        for units in self.units:
            shares[units.name] = (float(flat[start]), float(flat[start + 1]))
            tables[units.name] = flat[start + 2 : start + 3 + units.count]
            start += 3 + units.count
        return Costs(float(flat[1]), tables, self.unit, shares)

    def cost(self, final: bool = False) -> float:
        """What the masks leave costs now, or (``final``) what would be compiled."""
        if self._frozen:
            grids = {weight: getattr(self, _frozen_name(weight)).double() for weight in self._masks}
            return self._cost(self.costs(), self._levels(grids), Cut(0.5, 0.5))
        return self._cost(self.costs(), self._levels(), self._last() if final else self._now)

    def reach(self) -> tuple[float, float]:
        """The least and the most that masks can leave."""
        everything = Cut(np.finfo(np.float64).max, np.finfo(np.float64).max)
        costs, levels = self.costs(), self._levels()
        return self._cost(costs, levels, everything), self._cost(costs, levels, Cut())

    @torch.no_grad()
    def correct(self, share: float) -> bool:
        """Scale what units save, so that what would be compiled now costs ``share`` of the whole, as was measured.

        The whole model's cost stays, and so does the target's. False, and nothing changed, where that says that
        nothing is saved, or that the target is out of reach.
        """
        before, whole = self.prices.clone(), self.costs().total()
        saved = whole - self.cost(final=True)
        if saved <= 0 or share >= 1:
            return False
        factor = (1 - share) * whole / saved
        prices, start = self.prices, 2
        prices[1] = whole - factor * (whole - prices[1])
        for units in self.units:
            prices[start + 2 : start + 3 + units.count] *= factor
            start += 3 + units.count
        self._final = None
        if self.wanted < self.reach()[0]:
            prices.copy_(before)
            self._final = None
            return False
        return True

    # ---- the clock -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def advance(self, remaining: float) -> None:
        """Choose the threshold for the share of the cubic that is left; 0 freezes the masks."""
        if remaining > 0:
            self._thaw()
            costs = self.costs()
            whole = costs.total()
            allowed = self.wanted + (whole - self.wanted) * remaining**3
            self._now = Cut() if allowed >= whole else self._choose(costs, allowed)
        elif not self._frozen:
            self._now = self._last()
            for weight, mask in self._masks.items():
                getattr(self, _frozen_name(weight)).copy_(mask.levels() > self._now.of(mask.plan.role.family))
            self.frozen.fill_(True)
            self._frozen = True
        self._final = None

    def loaded(self) -> None:
        """After a checkpoint was read."""
        self._frozen, self._final = bool(self.frozen), None

    def _thaw(self) -> None:
        if self._frozen:
            self.frozen.fill_(False)
            self._frozen = False

    # ---- what is kept ------------------------------------------------------------------------------------------------

    @property
    def is_frozen(self) -> bool:
        """Whether masks no longer follow the scores."""
        return self._frozen

    @property
    def threshold(self) -> float:
        """The level that most blocks have to exceed now."""
        return self._now.others

    def kept(self, mask: BlockMask, final: bool) -> Tensor:
        """Bool grid of a mask: now, or at the end of a run that ended here."""
        if self._frozen:
            grid: Tensor = getattr(self, _frozen_name(mask.plan.weight))
            return grid
        cut = self._last() if final else self._now
        return mask.levels() > cut.of(mask.plan.role.family)

    def _last(self) -> Cut:
        """The cut that meets the target with the scores as they are: found again whenever they changed."""
        key = tuple((id(t), t._version) for mask in self._masks.values() for t in (mask.ranked,))
        if self._final is None or self._final[0] != key:
            self._final = key, self._choose(self.costs(), self.wanted)
        return self._final[1]

    def _levels(self, grids: Mapping[str, Tensor] | None = None) -> dict[str, UnitLevels]:
        known: dict[tuple[str, int], Tensor] = {}

        def of(weight: str, dim: int) -> Tensor | None:
            mask = self._masks.get(weight)
            if mask is None:
                return None
            if (weight, dim) not in known:
                grid = mask.levels() if grids is None else grids[weight]
                known[weight, dim] = grid.amax(1 - dim).repeat_interleave(mask.plan.block[dim]).cpu()
            return known[weight, dim]

        return {units.name: units.levels(of) for units in self.units}

    def _cost(self, costs: Costs, levels: Mapping[str, UnitLevels], cut: Cut) -> float:
        kept = ((units.name, levels[units.name].kept(cut.of(units.family))) for units in self.units)
        return costs.fixed + sum(costs.of(name, *widths) for name, widths in kept)

    def _choose(self, costs: Costs, allowed: float) -> Cut:
        """The lowest thresholds that cost no more than ``allowed``: one for all, then FFN dims use what is left."""
        levels = self._levels()
        candidates = _candidates(levels.values())
        common = _lowest(candidates, lambda level: self._cost(costs, levels, Cut(level, level)) <= allowed)
        dims = _candidates(levels[u.name] for u in self.units if u.family == Family.FFN)
        ffn = _lowest(dims[dims <= common], lambda level: self._cost(costs, levels, Cut(level, common)) <= allowed)
        return Cut(ffn, common)


def _frozen_name(weight: str) -> str:
    return f"kept/{weight.replace('.', '/')}"


def _candidates(levels: Iterable[UnitLevels]) -> np.ndarray:
    """Every level at which something goes, in order, after one below all."""
    found = [part.ravel() for own in levels for part in (own.values, own.scores) if part is not None]
    return np.unique(np.concatenate([np.array([-np.inf]), *found]))


def _lowest(candidates: np.ndarray, fits: Callable[[float], bool]) -> float:
    """The lowest candidate that fits, by bisection: costs fall as levels rise. The last where none does."""
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        if fits(float(candidates[middle])):
            high = middle
        else:
            low = middle + 1
    return float(candidates[low])
