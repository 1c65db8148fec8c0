"""From scores to what is kept: the steps that every binarizer is made of."""

from __future__ import annotations

import torch


def keep_highest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` highest scores, at least none and at most all: bool, of the scores' shape."""
    kept = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[scores.flatten().topk(min(max(count, 0), scores.numel())).indices] = True
    return kept.view(scores.shape)


def expand_blocks(mask: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """Repeat every entry of ``mask`` (gM, gN) over its block: shape (gM·M', gN·N')."""
    rows, columns = mask.shape
    m, n = block
    return mask[:, None, :, None].expand(rows, m, columns, n).reshape(rows * m, columns * n)
