"""What the masks of a program can save: the units that its attentions and FFNs can lose, their prices, and a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from bpc.costs import Costs
from bpc.oneshot.costs import counted, measured
from bpc.oneshot.heads import Heads, likely_heads
from bpc.oneshot.sublayers import Sublayer, find_sublayers
from bpc.oneshot.target import Target, TargetError
from bpc.scores.mask_set import MaskSet
from bpc.scores.plan import MaskPlan
from bpc.scores.units import Features, Units
from passes.ir.info import trace_info
from passes.rewrite.turn_heads import HeadFeatures
from passes.structure.role import Family
from passes.structure.roles import LinearRole, Roles


@dataclass(frozen=True, eq=False)
class Priced:
    """Units that masks can take out, what they cost, and what a target allows, in the unit of the costs."""

    units: tuple[Units, ...]
    costs: Costs
    wanted: float


def price(graph: fx.GraphModule, roles: Roles, plans: Sequence[MaskPlan], target: Target) -> Priced:
    """Prices of what ``plans`` mask of a traced graph (on the CPU); for a speed-up from times that are measured here.

    Raises `TargetError` where no attention or FFN is masked, `bpc.timing.alternate.BenchmarkError` for a model that
    cannot be timed.
    """
    masked = {plan.weight: plan for plan in plans}
    sublayers = tuple(s for s in find_sublayers(graph, roles) if any(weight in masked for weight in s.parts))
    if not sublayers:
        raise TargetError(f"{target}: the spec masks no attention and no feed-forward network, so nothing has a price")
    heads = likely_heads(graph, sublayers, roles, _example(graph))
    if target.speedup is None:
        costs, wanted = counted(graph, sublayers, target, heads)
    else:
        costs, wanted = measured(graph, sublayers, heads, target, alike=False)
    return Priced(tuple(_units(s, roles, masked, heads.get(s.name)) for s in sublayers), costs, wanted)


def aim(masks: MaskSet, priced: Priced, target: Target) -> None:
    """Let ``masks`` meet ``target``. Raises `TargetError` for one below what the masks can leave."""
    budget = masks.spend(priced.units, priced.costs, priced.wanted)
    least, whole = budget.reach()
    if priced.wanted < least:
        left, of = (_in_words(priced, target, cost) for cost in (least, whole))
        raise TargetError(
            f"{target} cannot be reached: with everything pruned that the spec masks, {left} of {of} stay; ask for "
            f"{_most(priced, target, least, whole)}"
        )


def _in_words(priced: Priced, target: Target, cost: float) -> str:
    return f"{cost * 1000:.3g} ms" if target.speedup is not None else f"{cost:,.0f} {priced.costs.unit}"


def _most(priced: Priced, target: Target, least: float, whole: float) -> str:
    if target.speedup is not None:
        return f"a speed-up from 1 to {whole / least:.2f}"
    if target.bytes is not None:
        return f"at least {least:,.0f} bytes"
    if target.params is not None:
        return f"params from {least / whole:.3f} to 1"
    prunable = whole - priced.costs.fixed
    return f"density from {(least - priced.costs.fixed) / prunable:.3f} to 1"


def _example(graph: fx.GraphModule) -> dict[str, Any]:
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in trace_info(graph).kwargs.items()}


def _units(sublayer: Sublayer, roles: Roles, masked: Mapping[str, MaskPlan], heads: Heads | None) -> Units:
    own = [roles[weight] for weight in sublayer.parts]
    if sublayer.family is Family.FFN:
        values = tuple(f for role in own for f in _dims(role, sublayer.count, masked, gated=len(own) > 2))
        return Units(sublayer.name, str(sublayer.family), sublayer.count, values)
    if heads is None or heads.output is None:
        raise AssertionError(f"{sublayer.name}: find_sublayers leaves out attentions whose heads are not known")
    values = tuple(_shaped(h, sublayer) for h in (heads.output, heads.value) if h is not None)
    scores: tuple[Features, ...] = ()
    if heads.query is not None and heads.key is not None:
        # A bias that stays is a constant in every product: only without it a dim is nothing.
        free = [h for h in (heads.query, heads.key) if _bias_goes(h.weight, h.bias, masked)]
        scores = tuple(_shaped(h, sublayer) for h in free)
    return Units(sublayer.name, str(sublayer.family), sublayer.count, values, scores)


def _dims(role: LinearRole, count: int, masked: Mapping[str, MaskPlan], gated: bool) -> list[Features]:
    """Rows of up and gate, columns of down. A constant factor of a product does not make it constant."""
    if role.role.leaves:
        return [Features(role.weight, 1 - role.out_dim, torch.arange(count).view(count, 1, 1))]
    tiles = role.out_features // count
    if (gated or tiles > 1) and not _bias_goes(role.weight, role.bias, masked):
        return []
    index = torch.arange(tiles * count).view(tiles, count, 1, 1)
    return [Features(role.weight, role.out_dim, rows) for rows in index]


def _bias_goes(weight: str, bias: str | None, masked: Mapping[str, MaskPlan]) -> bool:
    return bias is None or (weight in masked and masked[weight].bias is not None)


def _shaped(features: HeadFeatures, sublayer: Sublayer) -> Features:
    heads, dims = features.index.shape
    units = sublayer.count
    index = features.index if heads % units == 0 else features.index.repeat_interleave(units // heads, 0)
    return Features(features.weight, features.dim, index.reshape(units, -1, dims))
