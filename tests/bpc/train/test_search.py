"""Trials of a search begin with programs of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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


def test_two_objectives_give_the_trials_that_no_other_beats(make_program: Make, arguments: Make, dataset: Rows) -> None:
    """Without evaluations on the way the objective is asked for once a trial, of the masks that would be compiled."""

    def program_init(trial: Any) -> Program:
        strength = 0.0 if trial is None else trial.suggest_categorical("lambda", [0.0, 100.0])
        return make_program(regularization={"final_lambda": strength})

    asked: list[int] = []

    def objectives(metrics: dict[str, float]) -> tuple[float, float]:
        assert trainer.program is not None
        asked.append(trainer.state.global_step)
        small = trainer.program.shrink(verify=False)
        return metrics["eval_loss"], float(sum(p.numel() for p in small.module.parameters()))

    trainer = Trainer(
        program_init=program_init, args=arguments(max_steps=30), train_dataset=dataset, eval_dataset=dataset[:8]
    )
    import optuna

    study: dict[str, Any] = {"storage": optuna.storages.InMemoryStorage(), "study_name": "two"}
    front = trainer.hyperparameter_search(
        direction=["minimize", "minimize"],
        n_trials=2,
        hp_space=lambda trial: {},
        compute_objective=objectives,
        sampler=optuna.samplers.GridSampler({"lambda": [0.0, 100.0]}),
        **study,
    )
    known = optuna.load_study(**study)
    assert isinstance(front, list)
    assert {run.run_id for run in front} == {str(trial.number) for trial in known.best_trials}
    assert asked == [30, 30]
    sizes = {trial.params["lambda"]: trial.values[1] for trial in known.trials}
    assert sizes[100.0] < sizes[0.0]
    assert "lambda" in front[0].hyperparameters


def test_several_directions_are_refused_where_the_backend_has_one(
    make_program: Make, arguments: Make, dataset: Rows
) -> None:
    trainer = Trainer(program_init=lambda: make_program(), args=arguments(), train_dataset=dataset)
    with pytest.raises(
        ValueError, match=r'a search by ray has one objective\. Give one direction, or backend="optuna"'
    ):
        trainer.hyperparameter_search(direction=["minimize", "maximize"], backend="ray")


def test_ray_tune_searches_through_the_same_door(
    make_program: Make, arguments: Make, dataset: Rows, tmp_path: Path
) -> None:
    """Its workers get the trainer pickled, and a program of each trial's own."""
    tune = pytest.importorskip("ray.tune", reason="ray[tune] is not installed: it is no dependency of the tests")

    def program_init(trial: Any) -> Program:
        strength = 0.0 if trial is None else trial["lambda"]
        return make_program(regularization={"final_lambda": strength})

    class Measured(Trainer):
        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            assert self.program is not None
            return {**super().evaluate(*args, **kwargs), "eval_density": self.program.density()}

    trainer = Measured(
        program_init=program_init, args=arguments(max_steps=30), train_dataset=dataset, eval_dataset=dataset[:8]
    )
    best = trainer.hyperparameter_search(
        backend="ray",
        direction="minimize",
        n_trials=1,  # of every value of the grid
        hp_space=lambda _: {"lambda": tune.grid_search([0.0, 100.0])},
        compute_objective=lambda metrics: metrics["eval_density"],
        storage_path=str(tmp_path / "ray"),
    )
    assert best.hyperparameters["lambda"] == 100.0  # type: ignore[union-attr]
    assert best.objective < 0.6  # type: ignore[union-attr, operator]
    assert trainer.program is None
