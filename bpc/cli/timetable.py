"""How long a run will take, from a few steps of the model on its data; and fewer epochs where there is less time."""

from __future__ import annotations

import json
import statistics
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bpc.cli.training import Run
from bpc.writing import write_text

FILE = "timetable.json"
FINE_TUNING, PRUNING, FILLING = "fine-tuning", "pruning", "filling"
STEPS = 4  # the first warms up
# Parts of a training step of the whole model, until the phase itself is timed; the small model's step is cheaper.
MASKED, TAUGHT, FORWARD, OPTIMIZER = 1.3, 0.35, 0.3, 1.1
FEWEST = 20  # steps of a phase
FIXED = 45.0  # seconds of loading, tracing, compiling, saving and timing a model of some 20 million parameters …
PER_PARAMETER = 1.5e-7  # … and more for a larger one


@dataclass(frozen=True)
class Phase:
    """One training run: the epochs asked for, those there is time for, and what a step costs; ``done`` ones stay."""

    asked: float
    epochs: float
    step_seconds: float
    done: bool = False


@dataclass(frozen=True)
class Timetable:
    """All phases by name, in their order; ``steps`` of an epoch; ``other_seconds``: what is not training."""

    phases: dict[str, Phase]
    steps: int
    other_seconds: float

    @property
    def seconds(self) -> float:
        """All that is left, roughly."""
        return self.other_seconds + sum(self.steps * p.epochs * p.step_seconds for p in self._left)

    @property
    def _left(self) -> list[Phase]:
        return [phase for phase in self.phases.values() if not phase.done]

    def epochs(self, name: str) -> float:
        """Of one phase; 0 for one that is not there."""
        return self.phases[name].epochs if name in self.phases else 0.0

    def within(self, seconds: float) -> Timetable:
        """The same with every phase cut alike so that all fits into ``seconds``, down to `FEWEST` steps each."""
        whole = self.steps * sum(p.asked * p.step_seconds for p in self._left)
        share = min(1.0, max(seconds - self.other_seconds, 0.0) / whole) if whole else 1.0
        return replace(self, phases={name: self._cut(phase, share) for name, phase in self.phases.items()})

    def _cut(self, phase: Phase, share: float) -> Phase:
        if phase.done:
            return phase
        return replace(phase, epochs=min(phase.asked, max(phase.asked * share, FEWEST / self.steps)))

    def started(self, name: str, step_seconds: float) -> Timetable:
        """What is left when a phase begins whose steps were timed; those of later ones are as much off."""
        off = step_seconds / self.phases[name].step_seconds
        phases, done = {}, True
        for other, phase in self.phases.items():
            done = done and other != name
            phases[other] = replace(phase, done=True) if done else replace(phase, step_seconds=off * phase.step_seconds)
        return replace(self, phases=phases)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {p.epochs:.3g}" for name, p in self.phases.items() if p.epochs and not p.done)
        steps = sum(round(self.steps * phase.epochs) for phase in self._left)
        return f"epochs: {told}; {steps:,} steps, about {max(self.seconds / 60, 0.1):.1f} minutes from here"


def plan(run: Run, model: nn.Module, epochs: dict[str, float], taught: bool) -> Timetable:
    """From a few steps of the whole model; ``taught``: pruning and filling ask a teacher."""
    step, teacher = step_seconds(run, model), TAUGHT if taught else 0.0
    weights = {FINE_TUNING: 1.0, PRUNING: MASKED + teacher, FILLING: 1.0 + teacher}
    phases = {name: Phase(count, count, weights[name] * step) for name, count in epochs.items() if count}
    held_out = 0 if run.held_out is None else len(run.held_out)
    passes = 2 * -(-held_out // run.batch_size) * step * FORWARD  # of the original and the small model
    other = FIXED + PER_PARAMETER * sum(p.numel() for p in model.parameters()) + passes
    return Timetable(phases, -(-len(run.data) // run.batch_size), other)


def step_seconds(run: Run, model: nn.Module, teacher: nn.Module | None = None) -> float:
    """Time a few training steps, which leave the model and the random numbers as they were."""
    collate = run.collator(model)
    generator = torch.Generator().manual_seed(run.seed)
    size = min(run.batch_size, len(run.data))
    chosen = torch.randint(len(run.data), (STEPS, size), generator=generator).tolist()
    batches = [collate([run.data[i] for i in rows]) for rows in chosen]
    device = next(model.parameters()).device
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    training, seconds = model.training, []
    model.train()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of masks that nothing moves, which these steps do not want
        for batch in batches:
            inputs = {name: value.to(device) for name, value in batch.items()}
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=run.bf16):
                loss: Tensor = model(**inputs).loss
                if teacher is not None:
                    with torch.no_grad():
                        teacher(**inputs)
            loss.backward()
            seconds.append(time.perf_counter() - started)
            model.zero_grad(set_to_none=True)
    model.train(training)
    for name, value in model.named_buffers():
        value.copy_(buffers[name])
    return OPTIMIZER * statistics.median(seconds[1:])


def remembered(out: Path) -> Timetable | None:
    """What the run in ``out`` was started with, for --resume."""
    file = out / FILE
    if not file.exists():
        return None
    held = json.loads(file.read_text(encoding="utf-8"))
    return Timetable(**{**held, "phases": {name: Phase(**phase) for name, phase in held["phases"].items()}})


def remember(out: Path, table: Timetable) -> None:
    """Write it for `remembered`."""
    write_text(out / FILE, json.dumps(asdict(table), indent=1))


def memory(model: nn.Module) -> int:
    """Bytes of weights, gradients and Adam's two moments, without activations."""
    return sum(p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in model.parameters())
