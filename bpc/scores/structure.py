"""What is still alive under a set of masks, counted in heads and FFN dims (what a compiler can cut away)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bpc.scores.plan import MaskPlan

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
    """Count what the masks leave (``final``: at the final threshold, otherwise at the current one).

    A head lives if any block of its value rows *and* any of its output-projection columns is kept; an FFN dim lives if
    a block of every matrix into it and of the one out of it is kept. Weights without a mask count as kept. An estimate
    for the progress display, from plans alone; what is really cut is the analysis' business.
    """
    parts: dict[str, list[MaskPlan]] = defaultdict(list)
    for plan in masks.plans:
        if plan.part:
            parts[plan.part].append(plan)
    heads: list[tuple[int, int]] = []
    dims: list[tuple[int, int]] = []
    for plans in parts.values():
        alive: Tensor | None = None
        for plan in plans:
            features = _inner_features(masks, plan, final)
            if features is not None:
                alive = features if alive is None else _both(alive, features)
        if alive is None:
            continue
        kind = heads if plans[0].role.startswith("attention.") else dims
        kind.append((int(alive.sum()), alive.numel()))
    return Structure(
        heads=tuple(live for live, _ in heads),
        total_heads=tuple(total for _, total in heads),
        ffn_dims=tuple(live for live, _ in dims),
        total_ffn_dims=tuple(total for _, total in dims),
    )


def _inner_features(masks: MaskSet, plan: MaskPlan, final: bool) -> Tensor | None:
    """Which heads (or FFN dims) this matrix keeps alive, or None if it says nothing about them."""
    role = plan.role.rpartition(".")[2]
    if role not in ("value", "output", "up", "gate", "gate_up", "down"):
        return None
    inner = 1 - plan.out_dim if role in ("output", "down") else plan.out_dim
    kept = masks.block_mask(plan.weight).kept_blocks(final).any(dim=1 - inner)
    features = kept.repeat_interleave(plan.block[inner])
    if role in ("value", "output"):
        return features.view(plan.heads, -1).any(dim=1) if plan.heads else None
    return features.view(plan.tiles, -1).all(dim=0) if inner == plan.out_dim else features


def _both(left: Tensor, right: Tensor) -> Tensor:
    """Intersection; grouped heads (fewer values than outputs) are repeated to one size."""
    small, large = sorted((left, right), key=Tensor.numel)
    return large & small.repeat_interleave(large.numel() // small.numel())
