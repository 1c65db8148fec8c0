"""A sweep drawn: the metric of every trial against its speed-up, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bpc.results.result import Value
from bpc.results.sweep import Sweep, Trial

_FRONT, _OTHER, _ORIGINAL = "#0072B2", "#777777", "#D55E00"  # Okabe-Ito; shapes differ too


def front_figure(sweep: Sweep) -> Figure:
    """Trials as points with their standard errors, the front as a line, the original at 1×.

    Raises ValueError where no trial has come to a result.
    """
    if not sweep.done:
        raise ValueError("no trial to draw")
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = [trial for trial in sweep.done if trial.same_as is None]
    front, others = ([trial for trial in drawn if trial.front == wanted] for wanted in (True, False))
    _points(axes, others, _OTHER, "o", "other trials")
    _points(axes, front, _FRONT, "D", "Pareto front")
    # From one trial of the front to the next nothing was found that is better: a step, not a slope.
    speeds, metrics = [_speed(t) for t in front], [_metric(t) for t in front]
    axes.plot(speeds, metrics, color=_FRONT, linewidth=1.4, drawstyle="steps-pre", zorder=2)
    originals = {t.original.value: t.original for t in sweep.done if t.original is not None}
    if originals:
        known = list(originals.values())
        _bars(axes, [1.0] * len(known), known, [None] * len(known), _ORIGINAL, "s", "original")
    if len(originals) == 1:
        axes.axhline(next(iter(originals)), color=_ORIGINAL, linewidth=0.8, linestyle=":", zorder=1)
    up = sweep.better == "higher"
    for trial in front:
        axes.annotate(
            f"{trial.number:03}",
            (_speed(trial), _metric(trial)),
            xytext=(6, 6 if up else -12),
            textcoords="offset points",
            fontsize=8,
            color=_FRONT,
        )
    if sweep.unit == "share":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    kind = "time" if sweep.speed == "time" else "arithmetic"
    axes.set_xlabel(f"{kind} of the original / {kind} of the small model (×)")
    axes.set_ylabel(f"{sweep.metric} ({sweep.better} is better)")
    axes.set_title(f"Trials: {len(sweep.done)}, chosen on {sweep.chosen_on.rpartition('/')[2]}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.margins(0.08)
    axes.legend(fontsize=8, frameon=False, loc="best")
    return figure


def _speed(trial: Trial) -> float:
    assert trial.speedup is not None
    return trial.speedup.value


def _metric(trial: Trial) -> float:
    assert trial.metric is not None
    return trial.metric.value


def _points(axes: object, trials: Sequence[Trial], colour: str, marker: str, name: str) -> None:
    if trials:
        metrics, speeds = [t.metric for t in trials], [t.speedup for t in trials]
        _bars(axes, [_speed(t) for t in trials], metrics, speeds, colour, marker, name)


def _bars(
    axes: object,
    across: Sequence[float],
    metrics: Sequence[Value | None],
    speeds: Sequence[Value | None],
    colour: str,
    marker: str,
    name: str,
) -> None:
    up, side = ([0.0 if v is None else v.standard_error or 0.0 for v in values] for values in (metrics, speeds))
    axes.errorbar(  # type: ignore[attr-defined]
        across,
        [0.0 if m is None else m.value for m in metrics],
        yerr=up,
        xerr=side,
        fmt=marker,
        markersize=6,
        color=colour,
        ecolor=colour,
        elinewidth=0.8,
        capsize=2,
        label=f"{name} (± standard error)",
        zorder=3,
    )
