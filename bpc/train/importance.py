"""Scores that start from how much the model needs its blocks, in the place of a constant.

    gradient   I_b = Σ_batches |∂L/∂S_b|              ∂L/∂S_b = Σ_{(i,j) ∈ b} W_ij · ∂L/∂W_ij, every block kept
    fisher     I_b = Σ_batches (∂L/∂S_b)²
    S_b = s₀ + spread · (2 r_b − 1)                   r_b: rank of I_b within its group, strictly between 0 and 1

The derivative is what the straight-through gradient gives: to first order, how the loss changes when the block goes
(Michel et al. 2019 for heads, Molchanov et al. 2019 for any unit; the squares are an empirical Fisher information).
Ranks, because sizes of these sums say little across kinds: attention and feed-forward start even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bpc.scores.mask_set import MaskSet
from bpc.spec.schema import Start

Loss = Callable[[nn.Module, Mapping[str, Any]], Tensor]


def start_scores(
    model: nn.Module,
    masks: MaskSet,
    batches: Iterable[Mapping[str, Any]],
    start: Start = "fisher",
    *,
    spread: float = 1.0,
    loss: Loss | None = None,
    together: Callable[[Tensor], Tensor] = lambda importance: importance,
) -> None:
    """Set the scores of a program that has not been trained: ``start_scores(program.module, program.mask_set, …)``.

    Args:
        batches: a few, with labels; 8 of 32 examples tell heads apart.
        loss: of (model, batch); None: ``model(**batch).loss``.
        together: the mean over ranks, where each sees batches of its own.

    The model runs in training mode, and keeps its weights, gradients and mode. Raises ValueError without batches, and
    for a start that is no importance.
    """
    if start == "constant":
        raise ValueError('start="constant" needs no batches: scores start at spec.scores.init')
    sums = {key: torch.zeros_like(score) for key, score in masks.scores.items()}
    scores = list(masks.scores.values())
    training, seen = model.training, 0
    model.train()
    masks.set_progress(0.0)  # the threshold that a run begins with: every block is kept
    try:
        for batch in batches:
            seen += 1
            found = loss(model, batch) if loss is not None else model(**batch).loss
            gradients = torch.autograd.grad(found, scores, allow_unused=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient.abs() if start == "gradient" else gradient.square()
    finally:
        model.train(training)
    if not seen:
        raise ValueError("importance is measured on batches, and there are none")
    with torch.no_grad():
        for keys in masks.groups.values():
            importance = together(torch.cat([sums[key].flatten() for key in keys]))
            ranks = _ranks(importance).split([masks.scores[key].numel() for key in keys])
            for key, rank in zip(keys, ranks, strict=True):
                score = masks.scores[key]
                score.copy_(masks.settings.initial_score + spread * (2.0 * rank.view(score.shape) - 1.0))


def _ranks(values: Tensor) -> Tensor:
    """Shares of the values that are lower, each counting half of its equals: strictly between 0 and 1."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    below = counts.cumsum(0) - counts
    return ((below + counts / 2.0) / len(values))[place].to(values.dtype)
