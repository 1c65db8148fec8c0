"""Masks of what a plan kept, of one cut or of several after each other: what a report draws."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from passes.plan.data import Cut, PlanData


def kept_masks(plan: PlanData) -> dict[str, Tensor]:
    """{parameter: bool of its shape, True where it is still there}, for parameters that were cut."""
    return {cut.parameter: _spread(torch.ones(_small(cut), dtype=torch.bool), cut) for cut in plan.cuts}


def lifted(masks: Mapping[str, Tensor], plan: PlanData) -> dict[str, Tensor]:
    """Masks of a small model as masks of the one that ``plan`` made it from."""
    cuts = {cut.parameter: cut for cut in plan.cuts}
    ones = {name: torch.ones(_small(cut), dtype=torch.bool) for name, cut in cuts.items() if name not in masks}
    return {name: _spread(mask, cuts[name]) if name in cuts else mask for name, mask in {**ones, **masks}.items()}


def _small(cut: Cut) -> tuple[int, ...]:
    return tuple(len(cut.keep[dim]) if dim in cut.keep else size for dim, size in enumerate(cut.shape))


def _spread(mask: Tensor, cut: Cut) -> Tensor:
    """Back to the shape before the cut, with False in what is gone."""
    for dim, keep in cut.keep.items():
        size = [*mask.shape[:dim], cut.shape[dim], *mask.shape[dim + 1 :]]
        mask = torch.zeros(size, dtype=torch.bool).index_copy(dim, torch.tensor(keep, dtype=torch.long), mask)
    return mask
