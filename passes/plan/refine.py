"""A coarse plan that a forward can follow, its linear layers as small as a finer plan makes them.

The forward goes on seeing the coarse plan's widths, with zeros in the places that are gone (`passes.ir.compact`). That
is exact one layer at a time: whatever the finer plan drops of a projection contributes nothing, and zeros contribute
nothing either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from torch import nn

from passes.ir.compact import output_dim
from passes.plan.data import Cut, PlanData, Spread

AnyPlan = TypeVar("AnyPlan", bound=PlanData)


def refine(coarse: AnyPlan, fine: PlanData, model: nn.Module) -> AnyPlan:
    """``coarse`` with the cuts of ``fine`` in those linear layers of ``model`` where they are finer, as ``spreads``.

    Both plans are of one graph. A layer whose weight has several names keeps its coarse size, as does one of which the
    finer plan keeps what the coarse one drops.
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
        for spread in _spreads(weight, bias, out_dim, cuts, finer):
            spreads.append(spread)
            _cut_more(cuts, weight, finer[weight], spread.dim)
            if bias is not None and spread.dim == out_dim:
                _cut_more(cuts, bias, finer[bias], 0)
    return replace(coarse, cuts=tuple(cuts.values()), spreads=tuple(spreads)) if spreads else coarse


def _spreads(
    weight: str, bias: str | None, out_dim: int, cuts: dict[str, Cut], finer: dict[str, Cut]
) -> Iterator[Spread]:
    shape = finer[weight].shape
    for dim in (0, 1):
        seen, held = (_kept(plan.get(weight), dim, shape[dim]) for plan in (cuts, finer))
        place = {index: number for number, index in enumerate(seen)}
        if held == seen or any(index not in place for index in held):
            continue
        if dim == out_dim and bias is not None:
            lengths = (_kept(plan.get(bias), 0, shape[dim]) for plan in (cuts, finer))
            if bias not in finer or tuple(lengths) != (seen, held):
                continue
        yield Spread(weight, dim, len(seen), tuple(place[index] for index in held))


def _kept(cut: Cut | None, dim: int, size: int) -> tuple[int, ...]:
    return tuple(range(size)) if cut is None else cut.keep.get(dim, tuple(range(size)))


def _cut_more(cuts: dict[str, Cut], name: str, fine: Cut, dim: int) -> None:
    cut = cuts.get(name, Cut(name, fine.shape, {}))
    cuts[name] = replace(cut, keep={**cut.keep, dim: fine.keep[dim]})
