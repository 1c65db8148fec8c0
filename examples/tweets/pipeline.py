"""The whole path of the example: fine-tune, prune, compile, fill; each step resumable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import bpc
from bpc.program import Program
from bpc.report import write_report
from bpc.train import fill_zeros
from bpc.writing import new_file
from examples.tweets.data import encoder_directory, read_tweets, split_tweets, tweets_file
from examples.tweets.training import (
    Accuracy,
    Example,
    Phase,
    accuracy,
    encode,
    has_fast_bf16,
    load_classifier,
    logits,
    train,
    with_teacher,
)


@dataclass(frozen=True)
class Settings:
    """What a run is made of; two runs with equal settings give equal results on one machine."""

    train_size: int | None
    dense_epochs: float
    epochs: float
    fill_epochs: float
    batch_size: int
    dense_learning_rate: float
    learning_rate: float
    fill_learning_rate: float
    score_learning_rate: float | None
    final_lambda: float
    preset: str
    seed: int


class Workplace:
    """Checkpoints of an unfinished run, in ``out/unfinished``; a run with other settings starts afresh."""

    def __init__(self, out: Path, settings: Settings) -> None:
        self.directory = out / "unfinished"
        note = self.directory / "settings.json"
        wanted = json.dumps(asdict(settings), indent=1)
        self.resumes = note.exists() and note.read_text() == wanted
        if not self.resumes:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
            note.write_text(wanted)

    def phase(self, title: str, epochs: float, learning_rate: float, settings: Settings) -> Phase:
        return Phase(title, self.directory / title, epochs, learning_rate, settings.batch_size, settings.seed)

    def once(self, name: str, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What ``compute`` gave the first time; an interrupted run that goes on reads it from disk."""
        file = self.directory / f"{name}.safetensors"
        if not file.exists():
            with new_file(file) as staged:
                save_file({name: compute()}, staged)
        return load_file(file)[name]

    def finish(self) -> None:
        """Nothing is left to resume."""
        shutil.rmtree(self.directory)


@dataclass(frozen=True)
class Outcome:
    """Both models and how they do on the held-out tweets."""

    dense: PreTrainedModel
    small: bpc.DenseModel
    program: Program
    place: Workplace  # to be finished once everything else is written
    dense_accuracy: Accuracy
    compiled_accuracy: Accuracy  # as verified, before the fill
    small_accuracy: Accuracy


def run(settings: Settings, out: Path, console: Console) -> Outcome:
    """Train, prune, compile, fill. Raises `Interrupted` on Ctrl-C; the same call goes on from there."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(encoder_directory())
    split = split_tweets(read_tweets(tweets_file()), train_size=settings.train_size)
    data, held_out = encode(split.train, tokenizer), encode(split.test, tokenizer)
    place = Workplace(out, settings)
    bf16 = has_fast_bf16()
    console.print(
        f"{len(data):,} tweets to learn from, {len(held_out):,} held out; training in {'bf16' if bf16 else 'fp32'}"
        + (", resuming" if place.resumes else ""),
        highlight=False,
    )

    torch.manual_seed(settings.seed)  # of the new classification head
    dense = load_classifier(encoder_directory(), dropout=0.1)
    dense.set_attn_implementation("eager")  # faster than the fused kernel on short sequences
    phase = place.phase("fine-tuning", settings.dense_epochs, settings.dense_learning_rate, settings)
    train(phase, data, tokenizer, model=dense)
    dense_accuracy = accuracy(dense, held_out, tokenizer)
    console.print(f"dense: {dense_accuracy}", highlight=False)
    dense.save_pretrained(out / "dense")
    tokenizer.save_pretrained(out / "dense")  # so that `bpc prune` can start from it
    with console.status("asking the teacher once for every tweet"):
        data = with_teacher(data, place.once("teacher", lambda: logits(dense, data, tokenizer, bf16)))

    program, history = prune(settings, place, out / "dense", data, tokenizer)
    with console.status("compiling"):
        small = program.shrink()
    masks, title = program.masks(), "all-MiniLM-L6-v2 on tweets"
    write_report(out / "report", program.plain_graph(), masks, small, history=history, title=title)
    compiled_accuracy = accuracy(small.module, held_out, tokenizer)
    console.print(f"pruned and compiled: {compiled_accuracy}", highlight=False)
    if small.report is not None:
        console.print(f"masked against small: {small.report.agreement}", highlight=False)

    if settings.fill_epochs > 0:
        fill(settings, place, program, small, data, tokenizer)
    small.save_pretrained(out / "small")
    tokenizer.save_pretrained(out / "small")
    small = bpc.load(out / "small")  # both views with the weights as they are now
    small_accuracy = accuracy(small.module, held_out, tokenizer)
    return Outcome(dense, small, program, place, dense_accuracy, compiled_accuracy, small_accuracy)


def prune(
    settings: Settings, place: Workplace, start: Path, data: list[Example], tokenizer: PreTrainedTokenizerBase
) -> tuple[Program, list[dict[str, float]]]:
    """Fine-prune a copy of the dense model with the dense model as teacher; the program and the training log."""
    model = load_classifier(start, dropout=0.0)  # the teacher's soft labels regularise enough
    spec = {"preset": settings.preset, "regularization": {"final_lambda": settings.final_lambda}}
    program = bpc.compile(model, spec, example_inputs(tokenizer))
    model.set_attn_implementation("eager")
    _embeddings(model).requires_grad_(False)  # 12 million entries that no step need update
    phase = place.phase("pruning", settings.epochs, settings.learning_rate, settings)
    trainer = train(phase, data, tokenizer, program=program, score_learning_rate=settings.score_learning_rate)
    model.set_attn_implementation("sdpa")
    return program, trainer.state.log_history


def fill(
    settings: Settings,
    place: Workplace,
    program: Program,
    small: bpc.DenseModel,
    data: list[Example],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Hybrid Filled (paper section 5): the zeros left inside live heads learn too, in the small model."""
    module: Any = small.module  # a BERT, as the dense one
    fill_zeros(module, [plan.weight for plan in program.plans], torch.Generator().manual_seed(settings.seed))
    module.requires_grad_(True)
    _embeddings(module).requires_grad_(False)
    module.set_attn_implementation("eager")
    phase = place.phase("filling", settings.fill_epochs, settings.fill_learning_rate, settings)
    train(phase, data, tokenizer, model=module)
    module.set_attn_implementation("sdpa")


def _embeddings(model: PreTrainedModel) -> nn.Module:
    embeddings: nn.Module = model.get_input_embeddings()
    return embeddings


def example_inputs(tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Two short texts: the batch and the length stay dynamic."""
    batch = tokenizer(["the plane was late again", "thank you"], padding=True, return_tensors="pt")
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
