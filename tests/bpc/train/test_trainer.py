from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, EarlyStoppingCallback, TrainingArguments
from transformers.trainer_callback import TrainerCallback

from bpc.program import Program
from bpc.train import Trainer, score_learning_rate, score_parameters, weight_parameters
from passes import MaskError

Make = Callable[..., Any]


def history(trainer: Trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_a_short_run_with_defaults_prunes_and_logs_what_it_does(
    make_program: Make,
    make_model: Make,
    arguments: Make,
    dataset: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = make_program()
    with caplog.at_level(logging.INFO, logger="bpc.train.trainer"):
        trainer = Trainer(program=program, teacher=make_model(1), args=arguments(max_steps=60), train_dataset=dataset)
        trainer.train()
    assert "chosen for 60 steps" in caplog.text
    thresholds = history(trainer, "threshold")
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == 0.0
    assert thresholds[-1] == pytest.approx(0.1)
    assert history(trainer, "lambda")[-1] == pytest.approx(20.0)
    assert program.density() < 0.8
    assert history(trainer, "density")[-1] == pytest.approx(program.density(), abs=0.05)
    assert history(trainer, "heads")[0] == 8
    assert history(trainer, "ffn_dims")[-1] < 96


def test_scores_have_a_group_of_their_own_with_the_same_decay(
    make_program: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    program = make_program()
    rates: list[tuple[float, float]] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, optimizer: torch.optim.Optimizer, **__: Any) -> None:
            groups = optimizer.param_groups
            rates.append((groups[0]["lr"], groups[-1]["lr"]))

    trainer = Trainer(
        program=program,
        score_learning_rate=0.5,
        args=arguments(max_steps=10, warmup_steps=4, weight_decay=0.01),
        train_dataset=dataset,
        callbacks=[Watch()],
    )
    trainer.train()
    assert trainer.optimizer is not None
    scores, weights = trainer.optimizer.param_groups[-1], trainer.optimizer.param_groups[:-1]
    assert {id(p) for p in scores["params"]} == {id(p) for p in program.score_parameters()}
    assert scores["weight_decay"] == 0.0
    assert not {id(p) for group in weights for p in group["params"]} & {id(p) for p in scores["params"]}
    for weight_rate, score_rate in rates:
        assert score_rate == pytest.approx(weight_rate * 0.5 / 1e-3)
    assert max(rate for _, rate in rates) == pytest.approx(0.5)


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            control.should_save = True
            control.should_training_stop = True


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    make_program: Make, make_model: Make, arguments: Make, dataset: list[dict[str, Any]], tmp_path: Path
) -> None:
    teacher = make_model(1)
    whole = make_program()
    Trainer(program=whole, teacher=teacher, args=arguments("whole"), train_dataset=dataset).train()

    first = make_program()
    stopped = Trainer(
        program=first, teacher=teacher, args=arguments("parts"), train_dataset=dataset, callbacks=[StopAt(5)]
    )
    stopped.train()
    assert stopped.state.global_step == 5
    checkpoint = tmp_path / "parts" / "checkpoint-5"
    assert (checkpoint / "model.safetensors").exists()

    second = make_program(seed=7)
    resumed = Trainer(program=second, teacher=teacher, args=arguments("parts"), train_dataset=dataset)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 12
    expected, result = whole.module.state_dict(), second.module.state_dict()
    assert expected.keys() == result.keys()
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=0, atol=0, msg=name)
    assert whole.mask_set.threshold == second.mask_set.threshold == pytest.approx(0.1)


def test_loss_is_task_plus_distillation(
    make_program: Make, make_model: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    program, teacher = make_program(), make_model(1).eval()
    trainer = Trainer(
        program=program,
        teacher=teacher,
        distillation_weight=0.6,
        temperature=3.0,
        args=arguments(),
        train_dataset=dataset,
    )
    program.module.eval()  # no dropout; only the flag that compute_loss reads says training
    program.module.training = True
    program.set_progress(0.8)
    batch = trainer.data_collator(dataset[:8])
    loss = trainer.compute_loss(program.module, dict(batch))
    outputs = program.module(**batch)
    teacher_outputs = teacher(input_ids=batch["input_ids"])
    student, known = (torch.log_softmax(o.logits / 3.0, -1) for o in (outputs, teacher_outputs))
    divergence = 9.0 * (known.exp() * (known - student)).sum(-1).mean()
    torch.testing.assert_close(loss, 0.4 * outputs.loss + 0.6 * divergence)
    program.module.training = False
    torch.testing.assert_close(trainer.compute_loss(program.module, dict(batch)), outputs.loss)


def test_cached_teacher_logits_stand_in_for_the_teacher(
    make_program: Make, make_model: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    teacher = make_model(1).eval()
    with torch.no_grad():
        logits = teacher(input_ids=torch.tensor([e["input_ids"] for e in dataset])).logits
    cached = [{**e, "teacher_logits": row.tolist()} for e, row in zip(dataset, logits, strict=True)]
    runs = []
    for teacher_, data in ((teacher, dataset), (None, cached)):
        program = make_program()
        Trainer(program=program, teacher=teacher_, args=arguments(max_steps=4), train_dataset=data).train()
        runs.append(program.module.state_dict())
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_plain_model_is_distilled_without_a_program(
    make_model: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    trainer = Trainer(model=make_model(0), teacher=make_model(1), args=arguments(max_steps=3), train_dataset=dataset)
    trainer.train()
    assert history(trainer, "threshold") == []
    with pytest.raises(ValueError, match="not both"):
        Trainer(model=make_model(0), program=_program_stub(make_model), args=arguments())


def _program_stub(make_model: Callable[..., BertForSequenceClassification]) -> Program:
    return Program.__new__(Program)


def test_mixed_precision_ends_with_the_training(
    make_program: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    program = make_program()
    inputs = torch.tensor([e["input_ids"] for e in dataset])
    trainer = Trainer(program=program, args=arguments(max_steps=2, bf16=True), train_dataset=dataset)
    trainer.train()
    model = program.module.eval()
    assert "forward" not in model.__dict__
    seen = []
    hook = model.bert.encoder.layer[0].intermediate.dense.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    model(input_ids=inputs)
    hook.remove()
    assert seen == [torch.float32]
    trainer.train()  # and can begin again


def test_hand_written_loop(make_program: Make, dataset: list[dict[str, Any]]) -> None:
    program, steps = make_program(), 30
    model, masks = program.module.train(), program.mask_set
    weights = {"params": weight_parameters(model, masks), "lr": 1e-3}
    optimizer = torch.optim.AdamW([weights, score_parameters(masks, score_learning_rate(steps))])
    inputs = torch.tensor([e["input_ids"] for e in dataset])
    labels = torch.tensor([e["labels"] for e in dataset])
    for step in range(steps):
        program.set_progress(step / steps)
        loss = model(input_ids=inputs, labels=labels).loss + program.regularization()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    program.set_progress(1.0)
    assert program.density() < 0.8


def test_a_run_that_diverges_is_stopped(make_program: Make, arguments: Make, dataset: list[dict[str, Any]]) -> None:
    program = make_program()
    with torch.no_grad():
        program.module.classifier.weight.fill_(torch.nan)  # type: ignore[operator, union-attr]
    trainer = Trainer(program=program, args=arguments(max_steps=12), train_dataset=dataset)
    with pytest.raises(MaskError, match="the training diverged"):
        trainer.train()
    assert trainer.state.global_step < 3


def test_a_teacher_is_a_model(make_program: Make, arguments: Make) -> None:
    with pytest.raises(TypeError, match="teacher= takes a loaded model"):
        Trainer(program=make_program(), teacher="bert-base", args=arguments())  # type: ignore[arg-type]


@pytest.mark.parametrize(("every", "best"), [(2, 10), (7, 12)])
def test_the_best_checkpoint_is_one_at_the_final_threshold(
    make_program: Make,
    arguments: Make,
    dataset: list[dict[str, Any]],
    every: int,
    best: int,
) -> None:
    """By a metric that only gets worse the first checkpoint would be the best, in which nothing is pruned."""
    settings = {
        "save_strategy": "steps", "eval_strategy": "steps", "save_steps": every, "eval_steps": every,
        "load_best_model_at_end": True, "metric_for_best_model": "steps", "greater_is_better": False,
    }  # fmt: skip
    steps: list[int] = []
    program = make_program()
    trainer = Trainer(
        program=program,
        args=arguments(max_steps=12, **settings),
        train_dataset=dataset,
        eval_dataset=dataset[:8],
        compute_metrics=lambda _: {"steps": len(steps)},
    )

    class Count(TrainerCallback):
        def on_evaluate(self, *_: Any, **__: Any) -> None:
            steps.append(trainer.state.global_step)

    trainer.add_callback(Count())
    trainer.train()
    assert trainer.state.best_global_step == best
    assert program.mask_set.threshold == pytest.approx(0.1)


def test_early_stopping_waits_for_finished_masks(
    make_program: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    """Patience 2, and a metric that gets worse all the time: nothing stops before the threshold has arrived."""
    settings = {
        "save_strategy": "steps", "eval_strategy": "steps", "save_steps": 1, "eval_steps": 1, "max_steps": 20,
        "load_best_model_at_end": True, "metric_for_best_model": "steps", "greater_is_better": False,
    }  # fmt: skip
    evaluations: list[None] = []
    program = make_program()
    trainer = Trainer(
        program=program,
        args=arguments(**settings),
        train_dataset=dataset,
        eval_dataset=dataset[:8],
        compute_metrics=lambda _: evaluations.append(None) or {"steps": len(evaluations)},  # type: ignore[func-returns-value]
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    arrived = next(s for s in range(20) if program.mask_set.settings.schedule.remaining(s / 20) == 0)
    assert trainer.state.best_global_step == arrived
    assert trainer.state.global_step == arrived + 2
    assert program.mask_set.threshold == pytest.approx(0.1)
