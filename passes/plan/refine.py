"""A coarse plan that a forward can follow, its linear layers as small as a finer plan makes them.

The forward goes on seeing the coarse plan's widths, with zeros in the places that are gone (`passes.ir.compact`). That
is exact one layer at a time: whatever the finer plan drops of a projection contributes nothing, and zeros contribute
nothing either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from torch import nn

from passes.ir.compact import output_dim
from passes.plan.data import Cut, PlanData, Spread

AnyPlan = TypeVar("AnyPlan", bound=PlanData)


def refine(coarse: AnyPlan, fine: PlanData, model: nn.Module) -> AnyPlan:
    """``coarse`` with the cuts of ``fine`` in those linear layers of ``model`` where they are finer, as ``spreads``.

    Both plans are of one graph. What the one or the other drops goes, but for one index where that is all. A layer
    whose weight has several names keeps its coarse size.
    """
    cuts, finer = ({cut.parameter: cut for cut in plan.cuts} for plan in (coarse, fine))
    added = {fold.bias for fold in coarse.folds}
    names = list(coarse.aliases.values())
    spreads: list[Spread] = []
    for path, layer in model.named_modules():
        weight = f"{path}.weight" if path else "weight"
        out_dim = output_dim(layer)
        if out_dim is None or weight not in finer or names.count(weight) > 1:
            continue
        bias: str | None = weight.removesuffix("weight") + "bias"
        if layer._parameters.get("bias") is None and bias not in added:
            bias = None
        for dim in (0, 1):
            shape = finer[weight].shape
            seen, held = _seen_and_held(cuts.get(weight), finer[weight], dim, shape[dim])
            own_bias = bias if dim == out_dim else None
            if held == seen or not _alike(own_bias, cuts, finer, (seen, held)):
                continue
            place = {index: number for number, index in enumerate(seen)}
            spreads.append(Spread(weight, dim, len(seen), tuple(place[index] for index in held)))
            _cut(cuts, weight, shape, dim, held)
            if own_bias is not None:
                _cut(cuts, own_bias, (shape[dim],), 0, held)
    return replace(coarse, cuts=tuple(cuts.values()), spreads=tuple(spreads)) if spreads else coarse


def _seen_and_held(cut: Cut | None, fine: Cut | None, dim: int, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the coarse plan keeps along a dim, and what both keep."""
    everything = tuple(range(size))
    seen, kept = (everything if c is None else c.keep.get(dim, everything) for c in (cut, fine))
    among = set(kept)
    return seen, tuple(index for index in seen if index in among) or seen[:1]


def _alike(bias: str | None, cuts: dict[str, Cut], finer: dict[str, Cut], rows: tuple[tuple[int, ...], ...]) -> bool:
    """Whether both plans cut a bias as the rows of its weight."""
    if bias is None:
        return True
    return bias in finer and _seen_and_held(cuts.get(bias), finer[bias], 0, finer[bias].shape[0]) == rows


def _cut(cuts: dict[str, Cut], name: str, shape: tuple[int, ...], dim: int, held: tuple[int, ...]) -> None:
    cut = cuts.get(name, Cut(name, shape, {}))
    cuts[name] = replace(cut, keep={**cut.keep, dim: held})
