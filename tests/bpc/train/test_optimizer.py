"""Scores learn at their own rate in optimizers that users bring, with and without a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, StepLR
from transformers.trainer_callback import TrainerCallback

from bpc.train import Trainer, score_parameters, weight_parameters

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


class Rates(TrainerCallback):
    """(weights' rate, scores' rate) in each step."""

    def __init__(self, scores: list[torch.nn.Parameter]) -> None:
        self.scores = {id(score) for score in scores}
        self.seen: list[tuple[float, float]] = []

    def on_step_begin(self, *_: Any, optimizer: torch.optim.Optimizer, **__: Any) -> None:
        by_kind: dict[bool, float] = {}
        for group in optimizer.param_groups:
            kinds = {id(p) in self.scores for p in group["params"]}
            assert len(kinds) == 1, "scores share a group with weights"
            by_kind[kinds.pop()] = group["lr"]
        self.seen.append((by_kind[False], by_kind[True]))


def rates(program: Any, arguments: Make, dataset: Rows, **options: Any) -> list[tuple[float, float]]:
    watch = Rates(program.score_parameters())
    trainer = Trainer(program=program, args=arguments(max_steps=4), train_dataset=dataset, callbacks=[watch], **options)
    trainer.train()
    scores = {id(score) for score in program.score_parameters()}
    assert trainer.optimizer is not None
    [own] = [g for g in trainer.optimizer.param_groups if id(g["params"][0]) in scores]
    assert own["weight_decay"] == 0.0
    assert {id(p) for p in own["params"]} == scores
    return watch.seen


@pytest.mark.parametrize("with_scores", [True, False])
def test_scores_leave_the_groups_of_weights(
    make_program: Make, arguments: Make, dataset: Rows, with_scores: bool
) -> None:
    """The usual AdamW(model.parameters()) has them at the weights' rate; one without them would never move them."""
    program = make_program()
    mine = program.module.parameters() if with_scores else weight_parameters(program.module, program.mask_set)
    optimizer = torch.optim.AdamW(mine, lr=1e-3, weight_decay=0.1)
    found = rates(program, arguments, dataset, optimizers=(optimizer, None), score_learning_rate=0.5)
    assert found[0] == pytest.approx((1e-3, 0.5))
    for weights, scores in found:  # the Trainer's own linear decay
        assert scores == pytest.approx(500 * weights)
    assert found[-1][0] < found[0][0]


def test_a_scheduler_of_the_users_takes_them_along(make_program: Make, arguments: Make, dataset: Rows) -> None:
    program = make_program()
    optimizer = torch.optim.AdamW(program.module.parameters(), lr=1e-3, weight_decay=0.1)
    scheduler = LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    found = rates(program, arguments, dataset, optimizers=(optimizer, scheduler), score_learning_rate=0.5)
    for step, pair in enumerate(found):
        assert pair == pytest.approx((1e-3 / (1 + step), 0.5 / (1 + step)))


def test_a_group_that_the_user_made_for_them_stays(make_program: Make, arguments: Make, dataset: Rows) -> None:
    program = make_program()
    weights = {"params": weight_parameters(program.module, program.mask_set), "lr": 1e-3}
    optimizer = torch.optim.AdamW([weights, score_parameters(program.mask_set, 0.25)])
    scheduler = StepLR(optimizer, 1, gamma=0.5)
    found = rates(program, arguments, dataset, optimizers=(optimizer, scheduler))
    for step, pair in enumerate(found):
        assert pair == pytest.approx((1e-3 * 0.5**step, 0.25 * 0.5**step))


def test_schedulers_that_cannot_take_them_along_say_so(make_program: Make, arguments: Make, dataset: Rows) -> None:
    program = make_program()
    optimizer = torch.optim.AdamW(program.module.parameters(), lr=1e-3)
    trainer = Trainer(
        program=program,
        args=arguments(max_steps=2),
        train_dataset=dataset,
        optimizers=(optimizer, StepLR(optimizer, 1)),  # type: ignore[arg-type]
    )
    with pytest.raises(ValueError, match=r"group of their own before a StepLR is made: .*score_parameters"):
        trainer.train()


def test_training_again_keeps_the_groups(make_program: Make, arguments: Make, dataset: Rows) -> None:
    program = make_program()
    watch = Rates(program.score_parameters())
    trainer = Trainer(
        program=program,
        score_learning_rate=0.5,
        args=arguments(max_steps=2),
        train_dataset=dataset,
        optimizers=(torch.optim.AdamW(program.module.parameters(), lr=1e-3), None),
        callbacks=[watch],
    )
    trainer.train()
    trainer.train()
    assert [scores for _, scores in watch.seen] == pytest.approx([0.5, 0.25] * 2)
