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

from bpc import ranks
from bpc.cli.training import Run
from bpc.train.taught import PREFIX
from bpc.writing import write_text

FILE = "timetable.json"
FINE_TUNING, PRUNING, RECOVERY, FILLING = "fine-tuning", "pruning", "recovery", "filling"
STEPS = 6  # the first warms up
SAMPLE = 16  # batches of which these are taken
# Parts of a training step of the whole model, until the phase itself is timed; the small model's step is cheaper.
MASKED, TAUGHT, FORWARD, OPTIMIZER = 1.3, 0.35, 0.3, 1.1
FEWEST = 20  # steps of a phase
MARGIN = 1.2  # estimates are about so good
# Seconds of all that comes after a phase begins and is no training (tracing, compiling, saving, timing), for a model of
# 20 million parameters on two slow cores, with some for every parameter more.
OTHER = {FINE_TUNING: 70.0, PRUNING: 55.0, RECOVERY: 45.0, FILLING: 45.0}
ONE_SHOT = 180.0  # of measuring layers and refitting them, before the recovery
# The same, before masks are frozen, of a speed-up that is asked for: small models are exported and timed.
TIMED = 60.0
OF_PARAMETERS = 20e6


@dataclass(frozen=True)
class Phase:
    """One training run: the epochs asked for, those there is time for, and what a step costs; ``done`` ones stay."""

    asked: float
    epochs: float
    step_seconds: float
    done: bool = False


@dataclass(frozen=True)
class Timetable:
    """All phases by name, in their order; ``steps`` of an epoch; ``other``: what is no training after each begins."""

    phases: dict[str, Phase]
    steps: int
    other: dict[str, float]

    @property
    def seconds(self) -> float:
        """All that is left, roughly."""
        return self.other_seconds + sum(self.steps * p.epochs * p.step_seconds for p in self._left)

    @property
    def other_seconds(self) -> float:
        """What is left that is no training."""
        return next((self.other[name] for name, phase in self.phases.items() if not phase.done), 0.0)

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

    def overrun(self, seconds: float) -> str:
        """What to tell who asked for less time than the fewest steps take; "" where it suffices."""
        if self.seconds <= MARGIN * seconds:
            return ""
        return (
            f"that is more than --minutes leaves ({max(seconds, 0) / 60:.1f}): no phase gets fewer than {FEWEST} "
            f"steps, and {self.other_seconds / 60:.1f} minutes are no training. Shorter: less --eval data, a smaller "
            "--max-length or --batch-size, --no-time"
        )

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


def plan(run: Run, model: nn.Module, epochs: dict[str, float], taught: bool, timed: bool = False) -> Timetable:
    """From a few steps of the whole model; ``taught``: pruning and filling ask a teacher; ``timed``: for a speed-up."""
    step, teacher = step_seconds(run, model), TAUGHT if taught else 0.0
    weights = {FINE_TUNING: 1.0, PRUNING: MASKED + teacher, RECOVERY: 1.0 + teacher, FILLING: 1.0 + teacher}
    phases = {name: Phase(count, count, weights[name] * step) for name, count in epochs.items() if count}
    held_out = 0 if run.held_out is None else len(run.held_out)
    evaluation = -(-held_out // run.share) * step * FORWARD  # of the small model, and of the original at first
    size = max(1.0, sum(p.numel() for p in model.parameters()) / OF_PARAMETERS)
    first = next(iter(phases), PRUNING)
    other = {name: size * OTHER[name] + (2 if name == first else 1) * evaluation for name in OTHER}
    before = size * ((TIMED if timed else 0.0) + (ONE_SHOT if RECOVERY in phases else 0.0))
    other |= {name: other[name] + before for name in (FINE_TUNING, PRUNING, RECOVERY)}
    return Timetable(phases, -(-len(run.data) // run.batch_size), other)


def step_seconds(run: Run, model: nn.Module, teacher: nn.Module | None = None) -> float:
    """Time a few training steps, which leave the model and the random numbers as they were; all ranks take part."""
    collate = run.collator(model)
    batches = [collate([run.data[i] for i in rows]) for rows in _typical(run)]
    device = next(model.parameters()).device
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    training, seconds = model.training, []
    model.train()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of masks that nothing moves, which these steps do not want
        for batch in batches:
            inputs = {name: value.to(device) for name, value in batch.items() if not name.startswith(PREFIX)}
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=run.bf16):
                loss: Tensor = model(**inputs).loss
                if teacher is not None:
                    with torch.no_grad():
                        teacher(**inputs)
            loss.backward()
            ranks.average([p.grad for p in model.parameters() if p.grad is not None])
            seconds.append(time.perf_counter() - started)
            model.zero_grad(set_to_none=True)
    model.train(training)
    for name, value in model.named_buffers():
        value.copy_(buffers[name])
    return OPTIMIZER * statistics.fmean(seconds[1:])


def _typical(run: Run) -> list[list[int]]:
    """Rows of some batches as training makes them: of one length each, short and long; the first is to warm up."""
    generator = torch.Generator().manual_seed(run.seed)
    rows = torch.randperm(len(run.data), generator=generator)[: SAMPLE * run.share].tolist()
    if run.task.tokenizer is not None:
        rows.sort(key=lambda i: len(run.data[i]["input_ids"]))
    size = min(run.share, len(rows))
    starts = [round(k / STEPS * (len(rows) - size)) for k in range(1, STEPS)]
    return [rows[start : start + size] for start in (starts[0], *starts)]


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
