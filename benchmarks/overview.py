"""Draw docs/figures/overview.svg: what stays of a pruned model, and what pruning costs.

python benchmarks/overview.py [--out docs/figures/overview.svg]

Left: the paper's published model 19, from bpc/bench/published.json. Right: SST-2 without training, from
results/oneshot/sst2.json. The file says which numbers it shows (its description), so that a test can compare them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
# Okabe and Ito's: distinct for colour-blind readers and in grey.
KEPT, GONE, COLOURS = "#0072B2", "#DDDDDD", ("#0072B2", "#009E73", "#D55E00")
HEADS, DIMS, PUBLISHED = 12, 3072, 19


def numbers() -> dict[str, Any]:
    """What is drawn: heads and dims left by layer, and (speed-up, accuracy on dev in %) of each method and density."""
    models = json.loads((ROOT / "bpc" / "bench" / "published.json").read_text())["models"]
    model = next(m for m in models if m["id"] == PUBLISHED)
    rows = json.loads((ROOT / "results" / "oneshot" / "sst2.json").read_text())["rows"]
    ours = [r for r in rows.values() if r["method"] == "ours" and r.get("density") and "one shot" in r]
    magnitude = [r for r in rows.values() if r["method"] == "magnitude, over all layers"]
    curves = {
        "bpc.prune_once": _curve(ours, lambda row: row),
        "magnitude, bpc's repair": _curve(magnitude, lambda row: row["repaired"]),
        "magnitude, no repair": _curve(magnitude, lambda row: row["plain"]),
    }
    return {
        "heads": [HEADS - len(gone) for gone in model["pruned_heads"]],
        "dims": model["ffn_dims"],
        "f1": model["f1"],
        "original": round(100 * rows["dense"]["dev"]["accuracy"], 2),
        "curves": curves,
    }


def _curve(rows: list[dict[str, Any]], scored: Callable[[dict[str, Any]], dict[str, Any]]) -> list[list[float]]:
    """Means over seeds, one point a density."""
    points = []
    for density in sorted({row["density"] for row in rows}, reverse=True):
        same = [row for row in rows if row["density"] == density]
        accuracy = mean(scored(row)["dev"]["accuracy"] for row in same)
        points.append([round(mean(row["speed"]["speedup"] for row in same), 3), round(100 * accuracy, 2)])
    return points


def digest(shown: dict[str, Any]) -> str:
    """Of the numbers; in the file's description."""
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def draw(shown: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    heads, dims, speed = figure.subplots(1, 3, width_ratios=[1, 1, 1.6])
    _bars(heads, shown["heads"], HEADS, "attention heads left")
    _bars(dims, shown["dims"], DIMS, "FFN dims left")
    heads.set_ylabel("layer")
    heads.set_title(
        f"BERT-base on SQuAD, published with the paper: F1 {shown['f1']:.1f}", fontsize=9, loc="left", pad=8
    )
    for (name, points), colour, marker in zip(shown["curves"].items(), COLOURS, "os^", strict=True):
        xs, ys = zip(*points, strict=True)
        speed.plot(xs, ys, color=colour, marker=marker, label=name)
    speed.axhline(shown["original"], color="#555555", linewidth=1, linestyle="--", label="original")
    speed.set_xlabel("measured speed-up, ONNX Runtime, one thread")
    speed.set_ylabel("accuracy, %")
    speed.set_title("MiniLM on SST-2, no training after pruning", fontsize=9, loc="left", pad=8)
    speed.legend(frameon=False, fontsize=8, loc="lower left")
    speed.tick_params(labelsize=8)
    speed.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "bpc", "svg.fonttype": "path"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Description": f"numbers {digest(shown)}"})


def _bars(axes: Axes, left: list[int], whole: int, title: str) -> None:
    layers = range(len(left))
    axes.barh(layers, [whole] * len(left), color=GONE, height=0.8)
    axes.barh(layers, left, color=KEPT, height=0.8)
    axes.set_xlabel(f"{title}, of {whole:,}")
    axes.set_yticks(list(layers))
    axes.tick_params(labelsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, whole)
    axes.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "overview.svg")
    draw(numbers(), parser.parse_args().out)
