"""One resumable training run, as `bpc prune` needs it: of the original, the masked and the small model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
import typer
from torch import nn

from bpc import ranks
from bpc.cli.models import pretrained, some
from bpc.cli.tasks import own_classes
from bpc.cli.trust import TRUSTED
from bpc.dense import load
from bpc.directory import is_dense_directory
from bpc.tasks import Task
from bpc.tasks.evaluate import by_module, evaluate
from bpc.tasks.score import Score
from bpc.terminal.errors import CommandError
from bpc.train import ResumableInterrupt, Taught, Trainer
from bpc.train.checkpoints import newest_complete

if TYPE_CHECKING:
    from datasets import Dataset


WARM_UP = 0.06  # of a run's steps


@dataclass(frozen=True)
class Run:
    """What all runs have in common."""

    task: Task
    data: Any  # encoded rows, `bpc.train.Taught` where a teacher was asked before
    held_out: Dataset | None
    batch_size: int  # of a step, on all ranks together
    bf16: bool
    seed: int
    sharded: bool = False  # among the ranks (FSDP2)

    @property
    def share(self) -> int:
        """The rows of a step that each rank takes."""
        return self.batch_size // ranks.count()

    def collator(self, model: nn.Module) -> Any:
        """From encoded rows to a padded batch."""
        collate = self.task.collator(model)
        return self.data.collator(collate) if isinstance(self.data, Taught) else collate

    def train(self, checkpoints: Path, epochs: float, learning_rate: float, title: str, **what: Any) -> Trainer:
        """Train ``program=`` or ``model=``, by ``teacher=`` if there is one, from the last checkpoint if there is one.

        Exits with code 130 after Ctrl-C and 143 after SIGTERM, once a checkpoint is written.
        """
        stop = ResumableInterrupt()
        trained = what["program"].module if "program" in what else what["model"]
        trainer = Trainer(
            **what,
            title=title,
            train_dataset=self.data,
            processing_class=self.task.processor,
            data_collator=self.task.collator(trained),
            callbacks=[stop],
            args=transformers.TrainingArguments(
                output_dir=str(checkpoints),
                num_train_epochs=epochs,
                per_device_train_batch_size=self.share,
                learning_rate=learning_rate,
                warmup_steps=WARM_UP,
                logging_steps=10,
                logging_first_step=True,  # runs of a few steps have curves, too
                disable_tqdm=False,
                save_total_limit=2,
                save_strategy="epoch",
                report_to=[],
                use_cpu=not torch.accelerator.is_available(),  # said aloud: bf16 on a CPU needs it
                bf16=self.bf16,
                fsdp=True if self.sharded else None,  # type: ignore[arg-type]
                fsdp_config={"state_dict_type": "SHARDED_STATE_DICT"} if self.sharded else None,
                seed=self.seed,
                dataloader_pin_memory=False,
                # Texts of one length in a batch: less padding.
                train_sampling_strategy="random" if self.task.tokenizer is None else "group_by_length",
                remove_unused_columns=False,  # the task gives what the model takes
            ),
        )
        with ranks.ahead():
            newest = newest_complete(checkpoints)
        trainer.train(resume_from_checkpoint=newest)
        if ranks.count() > 1:
            # DistributedDataParallel holds the process group: freed last, as the interpreter ends, it may wait for ever
            trainer.model_wrapped = trained
            trainer.accelerator.free_memory()
        if stop.signal is not None:
            if ranks.is_first():
                typer.echo(
                    f"stopped at step {trainer.state.global_step} of {title}; the same command with --resume goes on"
                )
            raise typer.Exit(128 + stop.signal)
        return trainer

    def scores(self, model: nn.Module) -> list[Score]:
        """The task's metrics on the held-out rows; none without such rows."""
        if self.held_out is None:
            return []
        return evaluate(self.task, by_module(model), self.held_out, self.share, model)


def load_for(task: Task, directory: Path) -> tuple[nn.Module, list[str]]:
    """The directory's model with the task's head, and the names of its new, random weights (the head's).

    Raises `CommandError` for a directory that cannot be read, and for a small model with other classes.
    """
    if is_dense_directory(directory):
        if task.classes is not None and len(own := own_classes(directory)) != len(task.classes):
            raise CommandError(
                f"{directory} is a small model with {len(own)} classes, the data has {len(task.classes)} labels: start "
                "from the original model"
            )
        model: nn.Module = load(directory, trust_remote_code=TRUSTED.get()).module
        return model, []
    model, new = pretrained(getattr(transformers, task.auto_class), directory, **task.head())
    padding = getattr(task.processor, "pad_token_id", None)
    config: Any = model.config
    if getattr(config, "pad_token_id", None) is None and padding is not None:
        config.pad_token_id = padding  # by which a classifier of texts finds the last token
    return model, new


def load_teacher(task: Task, directory: Path) -> nn.Module:
    """A fine-tuned model for the task. Raises `CommandError` for random weights and another order of classes."""
    if task.classes is not None:
        own = own_classes(directory)
        if sorted(own) == sorted(task.classes) and own != task.classes:
            raise CommandError(
                f"--teacher {directory} orders its classes {', '.join(own)}, the model {', '.join(task.classes)}: its "
                "logits would be taken for those of other classes. Fine-tune it with the model's order"
            )
    teacher, missing = load_for(task, directory)
    if missing:
        labels = f" of the {len(task.classes)} labels {some(task.classes)}" if task.classes else ""
        raise CommandError(
            f"--teacher {directory} is no model for {task.name}{labels}: it has no fitting {some(missing)}. Fine-tune "
            "it on this task first, or leave the teacher out"
        )
    return teacher


def has_fast_bf16() -> bool:
    """Whether this machine multiplies matrices in bfloat16 faster than in float32: GPUs of today, some CPUs."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
