"""Rewinding: heads that an earlier run kept are not pruned in the next one (paper, section 5).

The first run says which heads of a layer are worth their cost, if not with which blocks; the second begins from the
dense weights again, and keeps every block of these heads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bpc.scores.live import Inner, live_units
from bpc.scores.plan import MaskPlan
from passes import MaskError
from passes.structure.head_places import HeadPlaces
from passes.structure.role import Family, Part


def surviving_blocks(
    plans: Sequence[MaskPlan], masks: Mapping[str, Tensor], places: Mapping[str, tuple[HeadPlaces, ...]]
) -> dict[str, Tensor]:
    """{weight: bool grid (`MaskPlan.grid`), True for the blocks of heads that live under ``masks``}, of attentions.

    A head lives if any of its value rows and any of its output columns is kept. Blocks that reach over several heads
    stay with any of them. ``places`` (`head_places`) say which features are whose; where they do not, heads lie side by
    side in the weights of one operand, and all blocks of a fused weight stay. Raises `passes.MaskError` where ``masks``
    say nothing about heads.
    """
    attentions: dict[str, list[MaskPlan]] = defaultdict(list)
    for plan in plans:
        if plan.role.family is Family.ATTENTION and plan.part:
            attentions[plan.part].append(plan)
    found: dict[str, Tensor] = {}
    for name, members in attentions.items():
        kept = {plan.weight: _kept(plan, masks[plan.weight]) for plan in members if plan.weight in masks}
        own = places.get(name)
        if own is None:
            inner = (Inner(plan.role.part, kept[plan.weight], plan.heads) for plan in members if plan.weight in kept)
            alive = live_units(inner)
        else:
            alive = _alive(own, kept)
        if alive is not None:
            found.update({plan.weight: _blocks(plan, _features(plan, alive, own)) for plan in members})
    if not found:
        raise MaskError("the masks to rewind from say of no head whether it was kept: no value or output is in them")
    return found


def _facing(plan: MaskPlan) -> int:
    """The stored dim that counts the features of heads."""
    return 1 - plan.out_dim if plan.role.leaves else plan.out_dim


def _kept(plan: MaskPlan, mask: Tensor) -> Tensor:
    """(features,) bool: True where the mask leaves anything."""
    if tuple(mask.shape) != plan.shape:
        raise MaskError(f"the mask of {plan.weight} has shape {tuple(mask.shape)}; the weight has {plan.shape}")
    return mask.bool().any(dim=1 - _facing(plan))


def _alive(places: Sequence[HeadPlaces], kept: Mapping[str, Tensor]) -> Tensor | None:
    """(heads,) bool: those of which values and output keep something; None if the masks are of neither."""
    said = [
        ((place.index >= 0) & kept[place.weight][place.index.clamp(min=0)]).any(-1).any(0)
        for place in places
        if place.part in (Part.VALUE, Part.OUTPUT) and place.weight in kept
    ]
    return torch.stack(said).all(0) if said else None


def _features(plan: MaskPlan, alive: Tensor, places: Sequence[HeadPlaces] | None) -> Tensor:
    """(features,) bool of one weight: those of live heads, and those of no head."""
    kept = torch.ones(plan.shape[_facing(plan)], dtype=torch.bool)
    if places is not None:
        indices = [place.index for place in places if place.weight == plan.weight]
        for index in indices:
            kept[index[index >= 0]] = False
        for index in indices:
            live = index[:, alive]
            kept[live[live >= 0]] = True
    elif not _fused(plan) and plan.heads is not None and alive.numel() % plan.heads == 0:
        kept = alive.view(plan.heads, -1).any(1).repeat_interleave(kept.numel() // plan.heads)
    return kept


def _fused(plan: MaskPlan) -> bool:
    return plan.role.part is not None and len(plan.role.part.members) > 1


def _blocks(plan: MaskPlan, kept: Tensor) -> Tensor:
    """The grid of blocks that hold any of the features."""
    dim = _facing(plan)
    blocks = kept.view(-1, plan.block[dim]).any(1)
    return (blocks[:, None] if dim == 0 else blocks[None, :]).expand(plan.grid).clone()
