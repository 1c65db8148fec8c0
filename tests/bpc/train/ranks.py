"""One of two processes of a distributed run; `test_ranks` starts both, as torchrun does: ``python … OUT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

import bpc
from bpc.train import ResumableInterrupt
from tests.bpc.train.test_proportion import SPEC, classifier, language_model, rows, run


def main(out: Path) -> None:
    settings: dict[str, Any] = {
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": True,
        "max_grad_norm": 0.0,
    }
    for make in (classifier, language_model):
        arguments = TrainingArguments(
            str(out / "run"),
            max_steps=1,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            train_sampling_strategy="sequential",
            logging_steps=1,
            **settings,
        )
        found = run(make, rows(make.__name__), arguments)
        torch.save(found, out / f"{make.__name__}-{os.environ['RANK']}.pt")
    torch.save(to_a_target(out, settings), out / f"target-{os.environ['RANK']}.pt")
    torch.save(stopped(out), out / f"stopped-{os.environ['RANK']}.pt")


def to_a_target(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Masks, scores and prices after a run whose ranks timed the model differently, each for itself."""
    program = bpc.compile(classifier(0), SPEC, target=bpc.Target(density=0.5))
    budget = program.mask_set.budget
    assert budget is not None
    budget.prices *= 1.0 + 0.3 * int(os.environ["RANK"]) * torch.arange(len(budget.prices)) / len(budget.prices)
    arguments = TrainingArguments(
        str(out / "run"), max_steps=6, per_device_train_batch_size=2, learning_rate=1e-2, logging_steps=1, **settings
    )
    bpc.Trainer(program=program, args=arguments, train_dataset=rows("classifier")).train()
    scores = {name: score.detach() for name, score in program.mask_set.scores.items()}
    return {"masks": program.masks(), "scores": scores, "prices": budget.prices, "cost": budget.cost()}


class SecondIsTerminated(TrainerCallback):
    """SIGTERM reaches the second rank alone, within its third step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if os.environ["RANK"] == "1" and state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def to_the_end(out: Path, rows_of_a_rank: int, *callbacks: Any, resume: bool = False) -> bpc.Trainer:
    """Six steps, or what is left of them, of rows in an order that lengths and seed decide."""
    arguments = TrainingArguments(
        str(out),
        num_train_epochs=3,
        per_device_train_batch_size=rows_of_a_rank,
        train_sampling_strategy="group_by_length",
        learning_rate=1e-2,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
    )
    program = bpc.compile(classifier(0), SPEC)
    trainer = bpc.Trainer(program=program, args=arguments, train_dataset=rows("classifier"), callbacks=[*callbacks])
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def stopped(out: Path) -> dict[str, Any]:
    """How a run of the two ranks ended of which one was told to stop, and what it is once it has gone on."""
    stop = ResumableInterrupt()
    trainer = to_the_end(out / "stopped", 2, SecondIsTerminated(), stop)
    step = trainer.state.global_step
    resumed = to_the_end(out / "stopped", 2, resume=True)
    return {"step": step, "signal": stop.signal, "state": resumed.program.module.state_dict()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
