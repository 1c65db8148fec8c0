"""What padding costs: the heads of a layer lie in one matrix, and each that lives is as wide as the fullest of them.

With n_h = Σ_d σ(S_hd), how many dims head h keeps, over the L live heads of a layer:

    F = (L · max_h n_h − Σ_h n_h) / all units of the layer            max softened: log of the mean of exp(n_h)

F is 0 when all are equally full, and otherwise the share of units that would be zeros in the small model. Its gradient,
(L · softmax(n)_h − 1) · σ', takes dims from the fullest heads and gives them to the others, and prefers no number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fragmentation(scores: Tensor, kept: Tensor, stretches: Sequence[tuple[int, int, int]]) -> Tensor:
    """F of one attention: a scalar with a gradient.

    Args:
        scores: (units, 1); ``kept``: (units,) bool, which of them live now.
        stretches: (start, heads, dims) of those that are dims inside heads (`MaskPlan.stretches`); whether a head lives
            is up to the last of them, its values.
    """
    total = torch.zeros((), device=scores.device, dtype=scores.dtype)
    if not stretches:
        return total
    start, heads, dims = stretches[-1]
    alive = kept[start : start + heads * dims].view(heads, dims).any(1)
    for start, heads, dims in stretches:
        if heads != len(alive):  # dims that all heads share are never padded
            continue
        full = scores[start : start + heads * dims].view(heads, dims).sigmoid().sum(1)
        count = alive.sum().to(full.dtype)
        widest = full.masked_fill(~alive, -torch.inf).logsumexp(0) - count.clamp(min=1).log()
        padded = count * widest - full.masked_fill(~alive, 0.0).sum()
        total = total + torch.where(count > 1, padded, torch.zeros_like(padded))
    return total / scores.numel()
