"""How long a run will take, from a few steps of the model on its data; and fewer epochs where there is less time."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bpc.cli.training import Run
from bpc.writing import write_text

FILE = "timetable.json"
STEPS = 4  # the first warms up
# Parts of a training step of the whole model: measured on BERT-class models, and rough for others.
MASKED, TAUGHT, FORWARD, OPTIMIZER = 1.3, 0.35, 0.3, 1.1
FEWEST = 20
OVERHEAD = 60.0  # seconds: loading, tracing, compiling, saving, timing


@dataclass(frozen=True)
class Timetable:
    """Epochs of every phase, steps of an epoch, and what a step and the rest cost in seconds."""

    fine_tuning: float
    pruning: float
    filling: float
    steps: int
    step_seconds: float
    other_seconds: float

    @property
    def training_seconds(self) -> float:
        weighted = self.fine_tuning + self.pruning * (MASKED + TAUGHT) + self.filling * (1 + TAUGHT)
        return weighted * self.steps * self.step_seconds

    @property
    def seconds(self) -> float:
        """All of it, roughly."""
        return self.training_seconds + self.other_seconds

    def within(self, minutes: float) -> Timetable:
        """The same with every phase cut alike, so that all fits into ``minutes``, down to `FEWEST` steps each."""
        left = max(60 * minutes - self.other_seconds, 0.0)
        share = min(1.0, left / self.training_seconds) if self.training_seconds else 1.0

        def cut(epochs: float) -> float:
            return epochs and min(epochs, max(epochs * share, FEWEST / self.steps))

        return replace(self, fine_tuning=cut(self.fine_tuning), pruning=cut(self.pruning), filling=cut(self.filling))

    def __str__(self) -> str:
        phases = {"fine-tuning": self.fine_tuning, "pruning": self.pruning, "filling": self.filling}
        told = ", ".join(f"{name} {epochs:.3g}" for name, epochs in phases.items() if epochs)
        return (
            f"epochs: {told}; {self.steps:,} steps an epoch, {self.step_seconds:.2g} s each; about "
            f"{max(self.seconds / 60, 0.1):.1f} minutes in all"
        )


def measure(run: Run, model: nn.Module, epochs: tuple[float, float, float]) -> Timetable:
    """Time a few steps, which leave the model and the random numbers as they were."""
    collate = run.task.collator(model)
    generator = torch.Generator().manual_seed(run.seed)
    size = min(run.batch_size, len(run.data))
    chosen = torch.randint(len(run.data), (STEPS, size), generator=generator).tolist()
    batches = [collate([run.data[i] for i in rows]) for rows in chosen]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    training, seconds = model.training, []
    model.train()
    with torch.random.fork_rng():
        for batch in batches:
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=run.bf16):
                loss: Tensor = model(**batch).loss
            loss.backward()
            seconds.append(time.perf_counter() - started)
            model.zero_grad(set_to_none=True)
    model.train(training)
    for name, value in model.named_buffers():
        value.copy_(buffers[name])
    step = OPTIMIZER * statistics.median(seconds[1:])
    held_out = 0 if run.held_out is None else len(run.held_out)
    passes = 3 * -(-held_out // run.batch_size) * step * FORWARD
    return Timetable(*epochs, -(-len(run.data) // run.batch_size), step, passes + OVERHEAD)


def remembered(out: Path) -> Timetable | None:
    """What the run in ``out`` was started with, for --resume."""
    file = out / FILE
    return Timetable(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def remember(out: Path, table: Timetable) -> None:
    write_text(out / FILE, json.dumps(asdict(table), indent=1))


def memory(model: nn.Module) -> int:
    """Bytes of weights, gradients and Adam's two moments, without activations."""
    return sum(p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in model.parameters())
