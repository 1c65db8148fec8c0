"""What is still alive under a set of masks, counted in heads and FFN dims (what a compiler can cut away)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bpc.scores.live import Inner, live_units
from bpc.scores.plan import MaskPlan
from passes.structure.role import Family, Part

if TYPE_CHECKING:
    from bpc.scores.mask_set import MaskSet


@dataclass(frozen=True)
class Structure:
    """Live and total heads and FFN dims, per attention core and per FFN in the model's order."""

    heads: tuple[int, ...]
    total_heads: tuple[int, ...]
    ffn_dims: tuple[int, ...]
    total_ffn_dims: tuple[int, ...]


@torch.no_grad()
def live_structure(masks: MaskSet, final: bool = False) -> Structure:
    """Count what the masks leave (``final``: at the final threshold, otherwise at the current one); see `live_units`.

    Weights without a mask count as kept.
    """
    parts: dict[str, list[MaskPlan]] = defaultdict(list)
    for plan in masks.plans:
        if plan.part:
            parts[plan.part].append(plan)
    heads: list[tuple[int, int]] = []
    dims: list[tuple[int, int]] = []
    for plans in parts.values():
        alive = live_units(_inner(masks, plan, final) for plan in plans)
        if alive is None:
            continue
        kind = heads if plans[0].role.family is Family.ATTENTION else dims
        kind.append((int(alive.sum()), alive.numel()))
    return Structure(
        heads=tuple(live for live, _ in heads),
        total_heads=tuple(total for _, total in heads),
        ffn_dims=tuple(live for live, _ in dims),
        total_ffn_dims=tuple(total for _, total in dims),
    )


def _inner(masks: MaskSet, plan: MaskPlan, final: bool) -> Inner:
    inner = 1 - plan.out_dim if plan.role.leaves else plan.out_dim
    kept = masks.block_mask(plan.weight).kept_blocks(final).any(dim=1 - inner)
    tiles = plan.tiles if plan.role.part is Part.GATE_UP else 1
    return Inner(plan.role.part, kept.repeat_interleave(plan.block[inner]), plan.heads, tiles)
