"""Curves of a pruning run: density, live heads and FFN dims, and loss, against the training step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# (panel title, [(key in the log, label, colour, dashes)], whether the panel starts at 0)
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str, str], ...], bool], ...] = (
    ("density of the masked weights", (("density", "density", "#0072B2", "-"),), True),
    ("heads left", (("heads", "heads", "#D55E00", "-"),), True),
    ("FFN dims left", (("ffn_dims", "FFN dims", "#009E73", "-"),), True),
    ("loss", (("loss", "training", "#000000", "-"), ("eval_loss", "evaluation", "#E69F00", "--")), False),
)


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


def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot what a `bpc.Trainer` logged. Panels without any logged value are left out.

    Raises ValueError if the log has nothing to plot.
    """
    records = list(history)
    panels = [
        (title, [line for line in lines if any(line[0] in r for r in records)], zero) for title, lines, zero in _PANELS
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        raise ValueError("the log holds neither density nor loss: was it written by bpc.Trainer?")
    figure = Figure(figsize=(3.6 * len(panels), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines, zero) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for key, label, colour, dashes in lines:
            points = [(r["step"], r[key]) for r in records if key in r and "step" in r]
            axes.plot(
                *zip(*points, strict=True), dashes, color=colour, label=label, marker="." if len(points) < 3 else ""
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        if not any(isinstance(y, float) for line in axes.lines for y in line.get_ydata(orig=True)):
            axes.yaxis.get_major_locator().set_params(integer=True)  # heads and dims are counted
        axes.grid(alpha=0.3)
        if zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    return figure
