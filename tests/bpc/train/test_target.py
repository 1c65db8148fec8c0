"""Runs to a target: what they leave costs what was asked, whatever the run went through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification
from transformers.trainer_callback import TrainerCallback

from bpc.oneshot.target import Target
from bpc.program import Program, compile
from bpc.train import Trainer
from bpc.train.progress import describe
from tests.bpc.train.test_trainer import StopAt, history

Make = Callable[..., Any]
SPEC = {
    "rules": [
        {"roles": "attention.*", "block": [8, 8]},
        {"roles": "ffn.*", "block": [1, "in_features"], "paired": True},
    ]
}
DENSITY = 0.4
DIM = 2 * 32  # parameters of an FFN dim


@pytest.fixture
def make_aimed(make_model: Callable[[int], BertForSequenceClassification]) -> Callable[..., Program]:
    def make(seed: int = 0) -> Program:
        example = {"input_ids": torch.ones(2, 8, dtype=torch.long)}
        return compile(make_model(seed), SPEC, example, target=Target(density=DENSITY))

    return make


def assert_met(program: Program) -> None:
    """The small model has what was asked, to one dim; but for biases, which have no price."""
    budget = program.mask_set.budget
    assert budget is not None
    assert budget.wanted - DIM < budget.cost() <= budget.wanted
    small = program.shrink().graph_module
    vectors = sum(p.numel() for p in program.plain_graph().parameters() if p.dim() < 2)
    assert sum(p.numel() for p in small.parameters() if p.dim() > 1) == budget.cost() - vectors


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_run_ends_at_its_target_and_says_how_it_got_there(
    make_aimed: Make, arguments: Make, dataset: list[dict[str, Any]], accumulation: int
) -> None:
    program = make_aimed()
    settings = arguments(max_steps=20, gradient_accumulation_steps=accumulation, per_device_train_batch_size=4)
    trainer = Trainer(program=program, args=settings, train_dataset=dataset)
    trainer.train()
    assert_met(program)
    costs = history(trainer, "cost")
    assert costs[0] == 1.0
    budget = program.mask_set.budget
    assert budget is not None
    whole = budget.costs().total()
    asked = budget.wanted / whole
    for step, cost in enumerate(costs, 1):
        c = 1 - min(1.0, max(0.0, (step / 20 - 0.1) / 0.7))
        assert cost > asked + (1 - asked) * c**3 - DIM / whole - 1e-4
        assert cost <= asked + (1 - asked) * c**3 + 1e-4
    assert history(trainer, "cost_asked") == [round(asked, 4)] * 20
    assert history(trainer, "lambda")[-1] == 0.0
    assert f"cost {costs[-1]:.1%} → {asked:.1%}" in describe(trainer.state.log_history[-2], program.mask_set)


def test_a_resumed_run_equals_an_uninterrupted_one(
    make_aimed: Make, arguments: Make, dataset: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Stopped while masks fall, and again after they were frozen."""
    whole, cut = make_aimed(), make_aimed()
    Trainer(program=whole, args=arguments("whole"), train_dataset=dataset).train()
    resume = None
    for stop in (5, 11, 99):
        trainer = Trainer(program=cut, args=arguments("parts"), train_dataset=dataset, callbacks=[StopAt(stop)])
        trainer.train(resume_from_checkpoint=resume)
        resume = str(tmp_path / "parts" / f"checkpoint-{stop}")
        cut.module.load_state_dict(make_other_state(cut))
    # What was loaded in between is overwritten by the checkpoint: nothing but it is carried over.
    trainer = Trainer(program=cut, args=arguments("parts"), train_dataset=dataset)
    trainer.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-11"))
    expected, result = whole.module.state_dict(), cut.module.state_dict()
    assert expected.keys() == result.keys()
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=0, atol=0, msg=name)
    assert_met(cut)


def make_other_state(program: Program) -> dict[str, Any]:
    state = program.module.state_dict()
    return {k: torch.zeros_like(v) if "scores" in k or "budget" in k else v for k, v in state.items()}


def test_the_best_checkpoint_has_finished_masks(
    make_aimed: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    """The best is the first at the target, before the step that freezes it; it is evaluated as it will be compiled."""
    settings = {
        "save_strategy": "steps", "eval_strategy": "steps", "save_steps": 1, "eval_steps": 1,
        "load_best_model_at_end": True, "metric_for_best_model": "steps", "greater_is_better": False,
    }  # fmt: skip
    program, kept = make_aimed(), []

    class Keep(TrainerCallback):
        def on_evaluate(self, *_: Any, **__: Any) -> None:
            kept.append(program.masks())

    trainer = Trainer(
        program=program,
        args=arguments(max_steps=10, **settings),
        train_dataset=dataset,
        eval_dataset=dataset[:8],
        compute_metrics=lambda _: {"steps": len(kept)},
        callbacks=[Keep()],
    )
    trainer.train()
    assert trainer.state.best_global_step == 8
    assert_met(program)
    assert all(torch.equal(mask, kept[7][name]) for name, mask in program.masks().items())
