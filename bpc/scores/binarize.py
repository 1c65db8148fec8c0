"""From block scores to a 0/1 block mask, and from there to a masked weight (straight-through).

    m = binarize(S)                                     (gM, gN), bool
    W'_{ij} = W_{ij} · m_{⌊i/M'⌋, ⌊j/N'⌋}                 forward
    ∂L/∂W = ∂L/∂W' ⊙ m        ∂L/∂S_b = Σ_{(i,j) ∈ block b} ∂L/∂W'_{ij} · W_{ij}        backward

The second gradient takes ∂m/∂S = 1 (Bengio et al. 2013; paper section 3): the scores of pruned blocks go on receiving a
gradient, so a block can come back.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from passes.masks.binarize import keep_highest

Method = Literal["sigmoid_threshold", "topk", "magnitude"]


def keep_top(scores: Tensor, fraction: float) -> Tensor:
    """The ``fraction`` of highest scores, at least none and at most all: bool, shape of ``scores``."""
    return keep_highest(scores, math.ceil(fraction * scores.numel() - 1e-9))


def binarize(scores: Tensor, method: Method, threshold: float, min_kept: float = 0.0) -> Tensor:
    """Blocks to keep: bool, shape of ``scores``.

    ``threshold`` is τ for ``sigmoid_threshold`` (keep where σ(S) > τ) and the kept fraction for ``topk`` and
    ``magnitude``. ``min_kept`` is the floor of method.md: that fraction of the highest scores stays whatever τ says.
    """
    if method != "sigmoid_threshold":
        return keep_top(scores, max(threshold, min_kept))
    kept = torch.sigmoid(scores) > threshold
    return kept | keep_top(scores, min_kept) if min_kept > 0 else kept


class MaskBlocks(torch.autograd.Function):
    """``W, S, m -> W'`` with the straight-through gradient above; one multiplication forward, two backward.

    The weight is viewed as (gM, M', gN, N') and the small mask broadcast over it, so the expanded mask is never stored.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, kept: Tensor, block: tuple[int, int]) -> Tensor:
        ctx.block, ctx.dtype = block, scores.dtype
        ctx.save_for_backward(weight, kept)
        rows, columns = kept.shape
        blocks = weight.view(rows, block[0], columns, block[1])  # (gM, M', gN, N')
        return (blocks * kept[:, None, :, None]).view(weight.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad,) = grads
        weight, kept = ctx.saved_tensors
        rows, columns = kept.shape
        grad = grad.reshape(rows, ctx.block[0], columns, ctx.block[1])  # (gM, M', gN, N')
        grad_weight = (grad * kept[:, None, :, None]).view(weight.shape) if ctx.needs_input_grad[0] else None
        grad_scores = None
        if ctx.needs_input_grad[1]:  # of bfloat16 weights in the scores' own precision
            grad_scores = (grad * weight.view(grad.shape)).sum(dim=(1, 3), dtype=ctx.dtype)
        return grad_weight, grad_scores, None, None


def mask_blocks(weight: Tensor, scores: Tensor, kept: Tensor, block: tuple[int, int]) -> Tensor:
    """Masked weight, shape of ``weight``; ``kept`` and ``scores`` are grids (gM, gN) in the weight's stored layout."""
    return MaskBlocks.apply(weight, scores, kept, block)
