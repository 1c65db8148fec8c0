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
from passes.structure.role import Family


def surviving_blocks(plans: Sequence[MaskPlan], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{weight: bool grid (`MaskPlan.grid`), True for the blocks of heads that live under ``masks``}, of attentions.

    A head lives if any of its value rows and any of its output columns is kept. Blocks that reach over several heads
    stay with any of them. Of a fused weight whose heads are not known all blocks stay. Raises `passes.MaskError` where
    ``masks`` say nothing about heads.
    """
    attentions: dict[str, list[MaskPlan]] = defaultdict(list)
    for plan in plans:
        if plan.role.family is Family.ATTENTION and plan.part:
            attentions[plan.part].append(plan)
    found: dict[str, Tensor] = {}
    for members in attentions.values():
        alive = live_units(_inner(plan, masks[plan.weight]) for plan in members if plan.weight in masks)
        if alive is not None:
            found.update({plan.weight: _blocks(plan, alive) for plan in members})
    if not found:
        raise MaskError("the masks to rewind from say of no head whether it was kept: no value or output is in them")
    return found


def _facing(plan: MaskPlan) -> int:
    """The stored dim that counts the features of heads."""
    return 1 - plan.out_dim if plan.role.leaves else plan.out_dim


def _inner(plan: MaskPlan, mask: Tensor) -> Inner:
    if tuple(mask.shape) != plan.shape:
        raise MaskError(f"the mask of {plan.weight} has shape {tuple(mask.shape)}; the weight has {plan.shape}")
    return Inner(plan.role.part, mask.bool().any(dim=1 - _facing(plan)), plan.heads)


def _blocks(plan: MaskPlan, alive: Tensor) -> Tensor:
    """The blocks of one weight that belong to live heads; keys and values of a group to the heads that read them."""
    dim = _facing(plan)
    kept = torch.ones(plan.shape[dim], dtype=torch.bool)
    if plan.heads is not None and alive.numel() % plan.heads == 0:
        heads = alive.view(plan.heads, -1).any(1)
        kept = heads.repeat_interleave(plan.shape[dim] // plan.heads)
    blocks = kept.view(-1, plan.block[dim]).any(1)
    return (blocks[:, None] if dim == 0 else blocks[None, :]).expand(plan.grid).clone()
