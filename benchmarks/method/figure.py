"""Draw docs/figures/method.svg: points of accuracy lost over measured speed-up, from results/method/sst2.json.

python benchmarks/method/figure.py [--out docs/figures/method.svg]

The file says which numbers it shows (its description), so that a test can compare them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
# Okabe and Ito's: distinct for colour-blind readers and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = "os^Dv<>"
SETS = ("validation", "dev")


def numbers() -> dict[str, Any]:
    """{set: {curve: [(speed-up, points lost)]}}: of every method its recovery that validates best, means over seeds."""
    rows = json.loads((ROOT / "results" / "method" / "sst2.json").read_text(encoding="utf-8"))["rows"]
    dense = rows["dense"]
    curves: dict[str, dict[tuple[float, ...], list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.values():
        if row["method"] != "dense":
            curves[_name(row)][row["hidden"], row["epochs a stage"], row["rate"]].append(row)
    chosen = {name: max(tried.values(), key=_validation) for name, tried in curves.items()}
    return {part: {name: _points(found, dense[part], part) for name, found in chosen.items()} for part in SETS}


def _name(row: dict[str, Any]) -> str:
    if row["method"] == "gradual":
        return "gradual, hidden states" if row["hidden"] else "gradual, logits"
    return "layers taken out" if row["method"].startswith("layers") else str(row["method"])


def _validation(rows: list[dict[str, Any]]) -> tuple[int, float]:
    """Whole families before those that are not done, then by the mean."""
    values = [row["validation"]["accuracy"] for row in rows]
    return len({row["target"] for row in rows}), sum(values) / len(values)


def _points(rows: list[dict[str, Any]], dense: dict[str, Any], part: str) -> list[list[float]]:
    """Means over seeds of what was asked for alike."""
    alike: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[row["method"], row["target"]].append(row)
    points = []
    for found in alike.values():
        speed = sum(row["speed"]["speedup"] for row in found) / len(found)
        accuracy = sum(row[part]["accuracy"] for row in found) / len(found)
        points.append([round(speed, 3), round(100 * (dense["accuracy"] - accuracy), 2)])
    return sorted(points)


def digest(shown: dict[str, Any]) -> str:
    """Of the numbers; in the file's description."""
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def draw(shown: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, (part, curves) in zip(figure.subplots(1, len(SETS), sharey=True), shown.items(), strict=True):
        for (name, points), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
            xs, ys = zip(*points, strict=True)
            line = "" if name.startswith("layers") else "-"
            axes.plot(xs, ys, color=colour, marker=marker, linestyle=line, label=name)
        axes.axhline(0, color="#555555", linewidth=1, linestyle="--")
        axes.set_title(f"MiniLM on SST-2, {part}", fontsize=9, loc="left", pad=8)
        axes.set_xlabel("measured speed-up, ONNX Runtime, one thread")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("points below the dense model")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.axes[0].invert_yaxis()
    with matplotlib.rc_context({"svg.hashsalt": "bpc", "svg.fonttype": "path"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Description": f"numbers {digest(shown)}"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "method.svg")
    draw(numbers(), parser.parse_args().out)
