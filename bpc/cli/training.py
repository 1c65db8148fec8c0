"""One resumable training run of a text classifier, as `bpc prune` needs it (twice, where a spec asks to fill)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import typer
from torch import nn

from bpc.cli.data import LabelledTexts
from bpc.cli.models import pretrained, read_config, some
from bpc.cli.trust import TRUSTED
from bpc.dense import load
from bpc.directory import is_dense_directory
from bpc.terminal.errors import CommandError
from bpc.train import ResumableInterrupt, Trainer
from bpc.train.checkpoints import newest_complete


@dataclass(frozen=True)
class Run:
    """What both runs have in common."""

    data: LabelledTexts
    held_out: LabelledTexts | None
    teacher: nn.Module | None
    tokenizer: Any
    batch_size: int
    learning_rate: float
    bf16: bool
    seed: int

    def train(self, checkpoints: Path, epochs: float, title: str, **what: Any) -> Trainer:
        """Train ``program=`` or ``model=``, from the last checkpoint if there is one.

        Exits with code 130 after Ctrl-C and 143 after SIGTERM, once a checkpoint is written.
        """
        stop = ResumableInterrupt()
        trainer = Trainer(
            **what,
            title=title,
            teacher=self.teacher,
            train_dataset=self.data,
            eval_dataset=self.held_out,
            processing_class=self.tokenizer,
            compute_metrics=accuracy,
            callbacks=[stop],
            args=transformers.TrainingArguments(
                output_dir=str(checkpoints),
                num_train_epochs=epochs,
                per_device_train_batch_size=self.batch_size,
                per_device_eval_batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                logging_steps=10,
                disable_tqdm=False,
                save_total_limit=2,
                save_strategy="epoch",
                report_to=[],
                use_cpu=not torch.accelerator.is_available(),  # said aloud: bf16 on a CPU needs it
                bf16=self.bf16,
                seed=self.seed,
                dataloader_pin_memory=False,
            ),
        )
        trainer.train(resume_from_checkpoint=newest_complete(checkpoints))
        if stop.signal is not None:
            typer.echo(
                f"stopped at step {trainer.state.global_step} of {title}; the same command with --resume goes on"
            )
            raise typer.Exit(128 + stop.signal)
        return trainer

    def accuracy(self, trainer: Trainer) -> str:
        """Accuracy on the held-out rows, in words."""
        return f"accuracy {trainer.evaluate()['eval_accuracy']:.4f}"


def class_order(directory: Path, labels: list[str]) -> list[str]:
    """The labels in the order of a model's own classes, where it has exactly these; else as they are."""
    own = _own_labels(directory)
    return own if sorted(own) == sorted(labels) else labels


def load_classifier(directory: Path, labels: list[str]) -> tuple[nn.Module, list[str]]:
    """A sequence classifier with one output per label, and the names of its new, random weights (the head's).

    Raises `CommandError` for a directory that cannot be read, and for a small model with other classes.
    """
    names = dict(enumerate(labels))
    own = _own_labels(directory)
    if is_dense_directory(directory):
        if len(own) != len(labels):
            raise CommandError(
                f"{directory} is a small model with {len(own)} classes, the data has {len(labels)} labels: start from "
                "the dense model"
            )
        return load(directory, trust_remote_code=TRUSTED.get()).module, []
    return pretrained(
        transformers.AutoModelForSequenceClassification,
        directory,
        num_labels=len(labels),
        id2label=names,
        label2id={label: i for i, label in names.items()},
    )


def load_teacher(directory: Path, labels: list[str]) -> nn.Module:
    """A fine-tuned classifier of these labels. Raises `CommandError` for one with random weights or another order."""
    own = _own_labels(directory)
    if sorted(own) == sorted(labels) and own != labels:
        raise CommandError(
            f"--teacher {directory} orders its classes {', '.join(own)}, the model {', '.join(labels)}: its logits "
            "would be taken for those of other classes. Fine-tune it with the model's order"
        )
    teacher, missing = load_classifier(directory, labels)
    if missing:
        raise CommandError(
            f"--teacher {directory} is no classifier of the {len(labels)} labels {some(labels)}: it has no fitting "
            f"{some(missing)}. Fine-tune it on this task first, or leave the teacher out"
        )
    return teacher


def _own_labels(directory: Path) -> list[str]:
    return [str(name) for _, name in sorted(read_config(directory).id2label.items())]


def accuracy(prediction: Any) -> dict[str, float]:
    """Share of rows whose highest logit is the label's."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}
