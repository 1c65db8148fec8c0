"""docs/figures/scaling.png: measured points, and the models' lines, also where nothing was fitted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from benchmarks.scaling.fit import COMPILED, CPU, Model, models
from bpc.writing import new_file

Cases = Mapping[str, Mapping[str, Any]]
COLOURS = dict(  # Okabe and Ito's
    zip((*COMPILED, "step"), ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#555555"), strict=True)
)
MARKERS = {"bert": "o", "llama": "s"}


def draw(cases: Cases, path: Path) -> None:
    """Write the picture."""
    fitted = [model for model in models(cases) if model.wanted.figure == CPU]
    figure = Figure(figsize=(11, 8.4), layout="constrained")
    FigureCanvasAgg(figure)
    deep, wide, planned, all_ = figure.subplots(2, 2).ravel()
    compiled = [model for model in fitted if (model.wanted.kind, model.wanted.family) == ("compile", "bert")]
    _lines(deep, cases, compiled, "layers", width=256)
    deep.set(title="BERT of width 256, by depth", xlabel="layers", ylabel="CPU seconds, one thread")
    _lines(wide, cases, compiled, "width", layers=2)
    wide.set(title="BERT of 2 layers, by width", xlabel="width", ylabel="CPU seconds, one thread")
    for width in (4096, 8192):
        _lines(planned, cases, [m for m in fitted if m.wanted.kind == "plan"], "layers", width=width)
    planned.set(title="Shapes of 7B and 70B, without weights", xlabel="layers", ylabel="CPU seconds, one thread")
    for width in (4096, 8192):
        row = max((r for k, r in cases.items() if k.startswith("plan") and r["width"] == width), key=_layers)
        planned.annotate(
            f"width {width:,}", (row["layers"], row["stages"]["analysis"][CPU]), xytext=(7, -3),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    _against(all_, cases, fitted)
    all_.set(title="All of them", xlabel="measured, CPU seconds", ylabel="by the model")
    for axes in (deep, wide, planned, all_):
        axes.set_xscale("log", base=2 if axes is not all_ else 10)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.set_title(axes.get_title(), fontsize=11)
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_formatter(NullFormatter())
    all_.xaxis.set_major_formatter(_plain)
    for axes in (deep, wide, planned):
        axes.xaxis.set_major_formatter(_plain)
    planned.set_xlim(1.6, 90)
    planned.set_yticks([2, 5, 10, 20])
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    with new_file(path) as staged:
        figure.savefig(staged, dpi=110, format="png", metadata={"Description": f"numbers {digest(cases)}"})


def digest(cases: Cases) -> str:
    """Of the numbers that are drawn; the picture holds it, so that a test can tell whether it is old."""
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


def _plain(value: float, _: object) -> str:
    return f"{value:,.10g}"


def _layers(row: Mapping[str, Any]) -> int:
    return int(row["layers"])


def _lines(axes: Axes, cases: Cases, fitted: list[Model], by: str, **fixed: int) -> None:
    """Points of the cases of that depth or width, and each model's line through what it says of them."""
    for model in fitted:
        own = {**model.residuals, **model.held_out}
        rows = [cases[key] for key in own if all(cases[key][name] == value for name, value in fixed.items())]
        rows.sort(key=lambda row: row[by])
        colour, places = COLOURS[model.wanted.stage], [row[by] for row in rows]
        axes.plot(places, [model(row) for row in rows], color=colour, linewidth=1)
        for row, place in zip(rows, places, strict=True):
            _point(axes, place, model.wanted.of(row), model, bool(row["held out"]))


def _against(axes: Axes, cases: Cases, fitted: list[Model]) -> None:
    values = []
    for model in fitted:
        for key in (*model.residuals, *model.held_out):
            row = cases[key]
            values.append(model.wanted.of(row))
            _point(axes, values[-1], model(row), model, bool(row["held out"]))
    axes.axline((1, 1), slope=1, color="#555555", linewidth=1)
    axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    axes.set_ylim(min(values) / 1.6, max(values) * 1.6)


def _point(axes: Axes, x: float, y: float, model: Model, held_out: bool) -> None:
    colour = COLOURS[model.wanted.stage]
    axes.scatter(
        [x], [y], marker=MARKERS[model.wanted.family], s=60 if held_out else 24, color=colour,
        facecolor="white" if held_out else colour, linewidth=1.6, zorder=3,
    )  # fmt: skip


def _legend() -> list[Line2D]:
    handles = [Line2D([], [], color=colour, label=stage, linewidth=2) for stage, colour in COLOURS.items()]
    point = {"color": "#555555", "linestyle": ""}
    handles += [
        Line2D([], [], marker=marker, label={"bert": "BERT", "llama": "Llama"}[family], **point)
        for family, marker in MARKERS.items()
    ]
    return [
        *handles,
        Line2D([], [], marker="o", markerfacecolor="white", markersize=8, label="held out of the fit", **point),
        Line2D([], [], color="#555555", linewidth=1, label="model"),
    ]
