"""Trials of a search begin with programs of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bpc.program import Program
from bpc.train import Trainer

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_every_trial_prunes_a_program_of_its_own(make_program: Make, arguments: Make, dataset: Rows) -> None:
    """λ is part of the spec, so a trial may choose it; 0 prunes nothing, and 100 what there is."""
    made: list[tuple[float, Program]] = []

    def program_init(trial: Any) -> Program:
        strength = 0.0 if trial is None else trial.suggest_categorical("lambda", [0.0, 100.0])
        made.append((strength, make_program(regularization={"final_lambda": strength})))
        return made[-1][1]

    trainer = Trainer(
        program_init=program_init,
        args=arguments(max_steps=30, eval_strategy="steps", eval_steps=30),
        train_dataset=dataset,
        eval_dataset=dataset[:8],
        compute_metrics=lambda _: {"density": trainer.program.density()},
    )
    assert trainer.program is made[0][1]
    import optuna

    best = trainer.hyperparameter_search(
        direction="minimize",
        n_trials=2,
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True)},
        compute_objective=lambda metrics: metrics["eval_density"],
        sampler=optuna.samplers.GridSampler({"lambda": [0.0, 100.0], "learning_rate": [1e-3]}),
    )
    trials = dict(made[1:])
    assert trials.keys() == {0.0, 100.0}
    assert trials[100.0].density() < 0.6 < trials[0.0].density()
    assert best.hyperparameters["lambda"] == 100.0  # type: ignore[union-attr]
    assert best.objective == pytest.approx(trials[100.0].density())  # type: ignore[union-attr]
    assert trainer.program is made[-1][1]
    assert trainer.mask_set is made[-1][1].mask_set


def test_one_source_of_models_is_enough(make_program: Make, make_model: Make, arguments: Make) -> None:
    with pytest.raises(ValueError, match="not both"):
        Trainer(program=make_program(), program_init=make_program, args=arguments())
    with pytest.raises(ValueError, match="not both"):
        Trainer(model=make_model(0), program_init=make_program, args=arguments())
