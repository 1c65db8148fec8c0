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
from bpc.cli.errors import INTERRUPTED
from bpc.train import ResumableInterrupt, Trainer


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

        Exits with code 130 after Ctrl-C, once a checkpoint is written.
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
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        if stop.interrupted:
            typer.echo(
                f"stopped at step {trainer.state.global_step} of {title}; the same command with --resume goes on"
            )
            raise typer.Exit(INTERRUPTED)
        return trainer

    def accuracy(self, trainer: Trainer) -> str:
        """Accuracy on the held-out rows, in words."""
        return f"accuracy {trainer.evaluate()['eval_accuracy']:.4f}"


def last_checkpoint(checkpoints: Path) -> str | None:
    """The newest checkpoint in a directory that may not exist."""
    found: str | None = (
        transformers.trainer_utils.get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    )
    return found


def load_classifier(directory: Path, labels: list[str]) -> nn.Module:
    """A sequence classifier with one output per label; a new head where the directory has none that fits."""
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    names = dict(enumerate(labels))
    model: nn.Module = transformers.AutoModelForSequenceClassification.from_pretrained(
        directory,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=config.num_labels != len(labels),
        num_labels=len(labels),
        id2label=names,
        label2id={label: i for i, label in names.items()},
    )
    return model


def accuracy(prediction: Any) -> dict[str, float]:
    """Share of rows whose highest logit is the label's."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}
