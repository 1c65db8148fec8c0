"""The file ``sweep.json``, schema bpc.sweep/1: the trials of a sweep, each with a ``result.json``; and its table."""

from __future__ import annotations

import math
import operator
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from rich.table import Table

from bpc.results.comparison import this_machine
from bpc.results.result import Figure, Result, ResultError, Strict, Unit, Value, read_as
from bpc.results.table import shown
from bpc.writing import write_text

SCHEMA: Literal["bpc.sweep/1"] = "bpc.sweep/1"


class Trial(Strict):
    """One run: ``directory`` beside the file. ``same_as``: an earlier trial of the same values, which was not repeated.

    ``metric`` and ``original``: of the small model and of the one it was made from; ``speedup``: original over small,
    with the ratio of every turn in which both were timed. ``front``: no other trial is better in one and as good in the
    other. ``why``: a failed trial's reason.
    """

    number: int
    directory: str
    values: dict[str, Any]
    state: Literal["done", "failed", "unfinished"]
    metric: Value | None = None
    original: Value | None = None
    speedup: Value | None = None
    front: bool = False
    same_as: int | None = None
    why: str | None = None


class Sweep(Strict):
    """What `bpc sweep` came to. ``chosen_on``: the data whose metric chose, so that it says too much of the chosen.

    ``speed``: "time", as measured under ``workload``, or "arithmetic".
    """

    schema_: Literal["bpc.sweep/1"] = Field(default=SCHEMA, alias="schema")
    metric: str
    unit: Unit
    better: Literal["higher", "lower"]
    speed: Literal["time", "arithmetic"]
    chosen_on: str
    workload: dict[str, str | int | float]
    asked: int
    trials: list[Trial]
    settings: dict[str, Any]
    inputs: dict[str, str]
    seeds: dict[str, int]
    machine: dict[str, Any] = Field(default_factory=lambda: asdict(this_machine(torch.get_num_threads())))

    @property
    def done(self) -> list[Trial]:
        """The trials that came to a result, fastest last."""
        return sorted((t for t in self.trials if t.state == "done"), key=lambda t: t.speedup.value if t.speedup else 0)

    @property
    def front(self) -> list[Trial]:
        """Those that no other trial beats, fastest last."""
        return [trial for trial in self.done if trial.front]

    def shown(self, value: Value | None) -> str:
        """The metric in its unit."""
        return shown(Figure(name=self.metric, unit=self.unit), value)

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        write_text(Path(file), self.model_dump_json(by_alias=True, indent=1, exclude_none=True))


def read_sweep(file: str | os.PathLike[str]) -> Sweep:
    """Raises `ResultError` for what is no file of this schema."""
    return read_as(Sweep, file, f"sweep of bpc ({SCHEMA})")


def with_front(trials: Sequence[Trial], higher_is_better: bool) -> list[Trial]:
    """The same, those marked that no other beats: none as fast has a better metric, none as good is faster."""
    sign = 1.0 if higher_is_better else -1.0
    points = [(sign * t.metric.value, t.speedup.value) if t.metric and t.speedup else None for t in trials]

    def beaten(point: tuple[float, float]) -> bool:
        return any(other is not None and other != point and min(map(operator.ge, other, point)) for other in points)

    front = [point is not None and not beaten(point) for point in points]
    return [trial.model_copy(update={"front": best}) for trial, best in zip(trials, front, strict=True)]


def speedup_of(result: Result, *, timed: bool) -> Value:
    """Original over small: in time with the ratio of every turn, or in arithmetic. Raises `ResultError` without it.

    The standard error is that of the median of the turns: how well this run of the clock knows the ratio.
    """
    name = "time" if timed else "arithmetic"
    figure = result.figure(name)
    if figure is None or figure.original is None or figure.small is None:
        said = (note for note in result.notes if note.startswith(("not timed", "arithmetic not counted")))
        why = next(said, f"its {name} is not known")
        raise ResultError(f"there is no speed-up: {why}")
    ratio = figure.original.value / figure.small.value
    before, after = figure.original.raw, figure.small.raw
    if before is None or after is None or len(before) != len(after) or len(before) < 2:
        return Value(value=ratio)
    turns = [b / a for b, a in zip(before, after, strict=True)]
    error = math.sqrt(math.pi / 2 / len(turns)) * statistics.stdev(turns)
    return Value(value=ratio, standard_error=error, raw=turns)


def sweep_table(sweep: Sweep) -> Table:
    """A row for each trial, fastest last, the front marked; failed ones below."""
    names = list(dict.fromkeys(name for trial in sweep.trials for name in trial.values))
    speed = "speed-up" if sweep.speed == "time" else "less arithmetic"
    table = Table(
        title=f"{sweep.metric} and {speed}, {len(sweep.done)} of {sweep.asked} trials", caption=_caption(sweep)
    )
    for column in ("", "trial", *names):
        table.add_column(column)
    for column in (sweep.metric, "original", speed):
        table.add_column(column, justify="right")
    for t in sweep.done:
        row = ["●" if t.front else "", f"{t.number:03}", *(_told(t.values.get(name)) for name in names)]
        faster = "" if t.speedup is None else f"{t.speedup.value:.2f}×" + _noise(t.speedup)
        table.add_row(*row, sweep.shown(t.metric), sweep.shown(t.original), faster, style="bold" if t.front else None)
    failed = [t for t in sweep.trials if t.state != "done"]
    if failed:
        table.add_section()
    for t in failed:
        table.add_row("", f"{t.number:03}", *(_told(t.values.get(name)) for name in names), t.state)
    return table


def _caption(sweep: Sweep) -> str:
    return f"●: on the Pareto front. Trials were chosen on {sweep.chosen_on}: report the metric on other data"


def _told(value: Sequence[Any] | object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _noise(value: Value) -> str:
    return "" if value.standard_error is None else f" ± {value.standard_error:.2f}"
