"""How fast the scores learn: their parameter group, and a learning rate that fits the length of the run."""

from __future__ import annotations

import math
from typing import Any

from bpc.scores import MaskSet

PAPER_LEARNING_RATE = 1e-2  # the published runs: tens of thousands of steps
LARGEST_LEARNING_RATE = 0.3

# How far a score whose gradient never changes its sign travels under Adam, over the distance it has to cover. Most of
# it is spent on noise: gradients change sign from batch to batch. 12 suits runs of a few hundred steps (the demo).
TRAVEL_MARGIN = 12.0


def travel_distance(threshold: float, initial_score: float = 0.0) -> float:
    """From the initial score to where σ(S) crosses the final ``threshold``: 2.2 for 0 and 0.1."""
    return max(initial_score - math.log(threshold / (1.0 - threshold)), 0.5) if 0.0 < threshold < 1.0 else 2.2


def score_learning_rate(steps: int, threshold: float = 0.1, initial_score: float = 0.0) -> float:
    """Peak learning rate with which scores can be pruned within ``steps`` optimizer steps.

    Adam moves a parameter by at most about its learning rate a step, and a linear decay halves the sum:
    ``steps · rate / 2 = margin · distance``. Never below the paper's 1e-2, never above 0.3.
    """
    rate = 2.0 * TRAVEL_MARGIN * travel_distance(threshold, initial_score) / max(steps, 1)
    return min(max(rate, PAPER_LEARNING_RATE), LARGEST_LEARNING_RATE)


def score_parameters(masks: MaskSet, learning_rate: float) -> dict[str, Any]:
    """Optimizer parameter group of the scores: own learning rate, no weight decay (it would pull scores to σ = 0.5)."""
    return {"params": list(masks.scores.values()), "lr": learning_rate, "weight_decay": 0.0}


def weight_parameters(model: Any, masks: MaskSet) -> list[Any]:
    """The model's trainable parameters without the scores, for a hand-written loop's other parameter groups."""
    scores = {id(score) for score in masks.scores.values()}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in scores]
