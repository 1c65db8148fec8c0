"""The scores' parameter group, in an optimizer that transformers makes or that the user brought."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from bpc.scores import MaskSet
from bpc.train.scores import score_parameters


def score_groups(optimizer: Any, masks: MaskSet) -> list[dict[str, Any]]:
    """The parameter groups that hold any score."""
    scores = {id(score) for score in masks.scores.values()}
    return [group for group in optimizer.param_groups if any(id(p) in scores for p in group["params"])]


def separate_scores(optimizer: Any, masks: MaskSet) -> int | None:
    """Give the scores a group of their own in an optimizer where they share one with weights, or have none.

    Returns the position of the group whose options and schedule they share; None if they had groups of their own.
    """
    scores = {id(score) for score in masks.scores.values()}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    mixed = [
        index
        for index, group in enumerate(optimizer.param_groups)
        if len({id(p) in scores for p in group["params"]}) == 2
    ]
    if scores <= held and not mixed:
        return None
    like = mixed[0] if mixed else 0
    for group in score_groups(optimizer, masks):
        group["params"] = [p for p in group["params"] if id(p) not in scores]
    options = {name: value for name, value in optimizer.param_groups[like].items() if name != "params"}
    optimizer.add_param_group({**options, **score_parameters(masks, options["lr"])})
    return like


def schedule_scores(scheduler: Any, masks: MaskSet, rate: float, like: int) -> None:
    """Let a scheduler that was made before the scores had a group of their own follow it, from ``rate`` on.

    Raises ValueError for schedulers whose groups cannot be added to.
    """
    if not isinstance(scheduler, LambdaLR):
        raise ValueError(
            f"the scores have to be a parameter group of their own before a {type(scheduler).__name__} is made: "
            "torch.optim.AdamW([{'params': bpc.train.weight_parameters(model, masks), 'lr': …}, "
            "bpc.train.score_parameters(masks, rate)]) with masks = program.mask_set; or bring no scheduler"
        )
    factor = scheduler.lr_lambdas[like]
    scheduler.base_lrs.append(rate)
    scheduler.lr_lambdas.append(factor)
    for group in score_groups(scheduler.optimizer, masks):
        group["initial_lr"] = rate
        group["lr"] = rate * factor(scheduler.last_epoch)


def set_score_rate(optimizer: torch.optim.Optimizer, masks: MaskSet, rate: float) -> None:
    """The peak rate of the scores' group, for a scheduler that is made next."""
    for group in score_groups(optimizer, masks):
        group["lr"] = rate
        group.pop("initial_lr", None)
