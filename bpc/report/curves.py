"""Curves of a pruning run, phase by phase, as data that the template draws."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.ticker import MaxNLocator

History = Sequence[Mapping[str, Any]]

_Record: TypeAlias = tuple[float, str, Mapping[str, Any]]  # step, phase, what was logged
_Choice: TypeAlias = tuple[str, tuple[tuple[str, str], ...], bool]

# (panel title, [(key in the log, label)], whether the panel starts at 0)
_PANELS: tuple[_Choice, ...] = (
    ("loss", (("loss", "training"), ("eval_loss", "evaluation")), False),
    ("density of the masked weights", (("density", "density"),), True),
    ("cost, share of original", (("cost", "cost"), ("cost_asked", "asked")), True),
    ("threshold τ", (("threshold", "τ"),), True),
    ("regularisation factor λ", (("lambda", "λ"),), True),
    ("heads left", (("heads", "heads"),), True),
    ("FFN dims left", (("ffn_dims", "FFN dims"),), True),
)
_NO_METRICS = ("loss", "runtime", "per_second", "_time", "steps", "samples")  # what a metric's name does not end in
_MOST_POINTS = 240
_WIDTH, _HEIGHT = 320, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 14, 34


@dataclass(frozen=True)
class Line:
    """One series: points in the drawing, and each point in words."""

    label: str
    points: tuple[tuple[float, float], ...]
    texts: tuple[str, ...]

    @property
    def path(self) -> str:
        """For an SVG path."""
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in self.points)


@dataclass(frozen=True)
class Panel:
    """One chart: lines, (place, label) of the ticks, and (place, name) where each phase begins."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    phases: tuple[tuple[float, str], ...]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The log history of a ``trainer_state.json`` (or of a checkpoint directory that has one).

    Raises ValueError for files without one.
    """
    found = Path(path)
    if found.is_dir():
        found = found / "trainer_state.json"
    history = json.loads(found.read_text()).get("log_history")
    if not isinstance(history, list):
        raise ValueError(f"{found} has no log_history; give a trainer_state.json")
    return history


def curve_panels(history: History | Mapping[str, History]) -> tuple[Panel, ...]:
    """Charts of what a `bpc.Trainer` logged; without what was never logged.

    ``history``: one phase's log, or {name of a phase: its log} in their order. Phases stand side by side.
    """
    if not isinstance(history, Mapping):
        history = {"pruning" if any("density" in record for record in history) else "training": history}
    records: list[_Record] = []
    starts: list[tuple[float, str]] = []
    offset = 0.0
    for phase, logged in history.items():
        steps = [float(r["step"]) for r in logged if _is_number(r.get("step"))]
        if not steps:
            continue
        starts.append((offset, phase))
        records += [(offset + float(r["step"]), phase, r) for r in logged if _is_number(r.get("step"))]
        offset += max(steps)
    return tuple(panel for choice in _choices(records) if (panel := _panel(*choice, records, starts, offset)))


def _choices(
    records: Sequence[_Record],
) -> Iterator[tuple[str, tuple[tuple[str, str], ...], bool]]:
    yield _PANELS[0]
    names = dict.fromkeys(key for _, _, record in records for key in record)
    for key in names:
        if key.startswith("eval_") and not key.endswith(_NO_METRICS):
            name = key.removeprefix("eval_").replace("_", " ")
            yield f"{name} (evaluation)", ((key, name),), False
    yield from _PANELS[1:]


def _panel(
    title: str,
    wanted: tuple[tuple[str, str], ...],
    zero: bool,
    records: Sequence[_Record],
    starts: Sequence[tuple[float, str]],
    end: float,
) -> Panel | None:
    found = []
    for key, label in wanted:
        points = [(step, float(r[key]), phase) for step, phase, r in records if _is_number(r.get(key))]
        if points:
            found.append((label, _thinned(points)))
    if not found:
        return None
    values = [y for _, points in found for _, y, _ in points]
    up = _ticks(min(0.0, *values) if zero else min(values), max(values))
    across = [x for x in _ticks(0, end, whole=True) if x <= end]
    place_x = _Scale(0, end, _LEFT, _WIDTH - _RIGHT)
    place_y = _Scale(up[0], up[-1], _HEIGHT - _BOTTOM, _TOP)
    shown = [phase for phase in starts if any(p == phase[1] for _, points in found for *_, p in points)]
    return Panel(
        title,
        tuple(
            Line(
                label,
                tuple((place_x(x), place_y(y)) for x, y, _ in points),
                tuple(f"{phase}, step {x:,.0f}: {label} {y:.4g}" for x, y, phase in points),
            )
            for label, points in found
        ),
        tuple((place_x(x), f"{x:,.0f}") for x in across),
        tuple((place_y(y), f"{y:,.10g}") for y in up),
        tuple((place_x(x), name) for x, name in shown),
    )


class _Scale:
    """Values in [low, high] to places in [begin, end]."""

    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        self.low, self.span, self.begin, self.room = low, (high - low) or 1.0, begin, end - begin

    def __call__(self, value: float) -> float:
        return round(self.begin + self.room * (value - self.low) / self.span, 1)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    if high - low < 1e-9 * max(abs(low), abs(high)):  # a flat line lies in the middle
        low, high = (low - 0.1 * abs(low), high + 0.1 * abs(high)) if high else (0.0, 1.0)
    locator = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], integer=whole)
    return [float(tick) for tick in locator.tick_values(low, high)]


def _thinned(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Every n-th point, and the last."""
    stride = math.ceil(len(points) / _MOST_POINTS)
    kept = points[::stride]
    return kept if kept[-1] is points[-1] else [*kept, points[-1]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
