"""How much of an optimizer step one micro-batch is (docs/decisions/0013-losses-in-proportion.md).

A loss of a step is the mean over all items of its micro-batches on all ranks. Each micro-batch returns the mean over
its own items, so it weighs as many parts of the step as it has items:

    mean over the step = Σ_i (n_i / Σ_j n_j) · mean over micro-batch i
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import find_batch_size
from torch import Tensor, nn

IGNORED_LABEL = -100  # transformers' label of positions that carry no loss


def counted(labels: Tensor, shifted: bool = False) -> Tensor:
    """Bool, shape of ``labels``: the outputs that have a label. ``shifted``: output t is compared with label t + 1."""
    if not shifted:
        return labels != IGNORED_LABEL
    return torch.nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORED_LABEL) != IGNORED_LABEL


@torch.no_grad()
def ignores_first_label(model: nn.Module, batch: Mapping[str, Any]) -> bool:
    """Whether a model's loss compares its output t with label t + 1: by its loss where only the first label is given.

    Of labels (rows, positions); False for others, and for a model that says nothing. The model is left as it was.
    """
    labels = batch.get("labels")
    if not isinstance(labels, Tensor) or labels.dim() != 2 or labels.is_floating_point() or labels.shape[1] < 2:
        return False
    rows = {name: value[:1] if isinstance(value, Tensor) else value for name, value in batch.items()}
    only = torch.full_like(labels[:1], IGNORED_LABEL)
    only[:, 0] = labels.max().clamp(min=0)
    training = model.training
    model.eval()
    try:
        loss = getattr(model(**{**rows, "labels": only}), "loss", None)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    finally:
        model.train(training)
    return isinstance(loss, Tensor) and (bool(loss.isnan().any()) or bool((loss == 0).all()))


def items_in(batch: Mapping[str, Any], shifted: bool = False) -> float | Tensor:
    """How many items a batch's losses are means over: labels that count, or rows where labels are none of these."""
    labels = batch.get("shift_labels", batch.get("labels"))
    if not isinstance(labels, Tensor):
        return rows_in(batch)
    if labels.is_floating_point():  # of a regression, or one per class
        return float(labels.numel())
    return counted(labels, shifted and "shift_labels" not in batch).sum()


def rows_in(batch: Any) -> float:
    """How many rows a batch has."""
    return float(find_batch_size(dict(batch)) or 1) if isinstance(batch, Mapping) else 1.0


def weigh(loss: Tensor, weight: float | Tensor) -> Tensor:
    """``loss · weight``; 0 for a micro-batch without items, whose mean is 0/0 and would spoil the whole step."""
    if not isinstance(weight, Tensor):
        return loss * weight
    weight = weight.to(loss.device)
    return torch.where(weight > 0, loss, torch.zeros_like(loss)) * weight
