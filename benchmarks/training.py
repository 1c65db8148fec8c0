"""Training as the benchmarks of tweets and SST-2 do it: plain transformers plus `bpc.Trainer`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

import bpc
from bpc.cli.training import has_fast_bf16
from bpc.train import ResumableInterrupt
from examples.tweets.data import LABELS, Tweet

MAX_TOKENS = 48  # 99 % of the tweets are shorter
EVALUATION_BATCH = 64

Example = dict[str, Any]


class Interrupted(Exception):
    """Ctrl-C stopped a training step; a checkpoint is written."""


@dataclass(frozen=True)
class Phase:
    """One training run: where its checkpoints go and how it learns."""

    title: str
    directory: Path
    epochs: float
    learning_rate: float
    batch_size: int
    seed: int


def encode(tweets: Sequence[Tweet], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Token ids and label of every tweet; padding happens per batch."""
    encoded = tokenizer([tweet.text for tweet in tweets], truncation=True, max_length=MAX_TOKENS)
    return [{"input_ids": ids, "labels": tweet.label} for ids, tweet in zip(encoded["input_ids"], tweets, strict=True)]


def load_classifier(directory: Path, dropout: float) -> PreTrainedModel:
    """The encoder with a classification head of three classes (new, or the one saved in ``directory``)."""
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        directory,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
    )
    return model


def example_inputs(tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Two short texts: the batch and the length stay dynamic."""
    batch = tokenizer(["the plane was late again", "thank you"], padding=True, return_tensors="pt")
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def train(phase: Phase, data: list[Example], tokenizer: PreTrainedTokenizerBase, **options: Any) -> bpc.Trainer:
    """Run one phase with `bpc.Trainer`, or what is left of it: checkpoints in its directory are resumed from.

    Raises `Interrupted` after Ctrl-C, once the checkpoint is written.
    """
    arguments = TrainingArguments(
        output_dir=str(phase.directory),
        num_train_epochs=phase.epochs,
        per_device_train_batch_size=phase.batch_size,
        learning_rate=phase.learning_rate,
        warmup_steps=0.06,  # a share of the run
        lr_scheduler_type="linear",
        weight_decay=0.01,
        optim="adamw_torch_fused",
        train_sampling_strategy="group_by_length",  # tweets of one length in a batch: little padding
        use_cpu=not torch.cuda.is_available(),
        bf16=not torch.cuda.is_available() and has_fast_bf16(),
        logging_steps=10,
        save_strategy="epoch",  # and on Ctrl-C
        save_total_limit=1,
        report_to="none",
        disable_tqdm=False,
        seed=phase.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    stop = ResumableInterrupt()
    trainer = bpc.Trainer(
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=4),
        callbacks=[stop],
        title=phase.title,
        **options,
    )
    trainer.train(resume_from_checkpoint=any(phase.directory.glob("checkpoint-*")))
    if stop.interrupted:
        raise Interrupted
    return trainer


def logits(model: nn.Module, data: list[Example], tokenizer: PreTrainedTokenizerBase, bf16: bool = False) -> Tensor:
    """Logits of every example in order: (examples, classes), float32."""
    model.eval()
    device = next(model.parameters()).device
    result = torch.empty(len(data), int(model.config.num_labels))  # type: ignore[arg-type, union-attr]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16 and device.type == "cpu"):
        for rows in _by_length(data):
            batch = tokenizer.pad([{"input_ids": data[i]["input_ids"]} for i in rows], return_tensors="pt")
            result[rows] = model(**batch.to(device)).logits.float().cpu()
    return result


def _by_length(data: list[Example]) -> Iterator[list[int]]:
    order = sorted(range(len(data)), key=lambda i: len(data[i]["input_ids"]))
    for start in range(0, len(order), EVALUATION_BATCH):
        yield order[start : start + EVALUATION_BATCH]


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, with the standard error of that share over ``count`` examples."""

    value: float
    count: int

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.value * (1.0 - self.value) / self.count)

    def __str__(self) -> str:
        return f"{self.value:.2%} ± {self.standard_error:.2%}"


def accuracy(model: nn.Module, data: list[Example], tokenizer: PreTrainedTokenizerBase) -> Accuracy:
    """Accuracy in float32, whatever precision the training used."""
    labels = torch.tensor([example["labels"] for example in data])
    right = logits(model, data, tokenizer).argmax(-1) == labels
    return Accuracy(float(right.double().mean()), len(data))


def with_teacher(data: list[Example], teacher: Tensor) -> list[Example]:
    """The examples with the fixed teacher's logits as a column, so that no step has to ask the teacher again."""
    return [{**example, "teacher_logits": row} for example, row in zip(data, teacher.tolist(), strict=True)]
