"""Measured speed-up against the arithmetic ratio, with published points beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bpc.results.comparison import Comparison

_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")  # Okabe-Ito
_MARKERS = ("o", "s", "^", "D")
_PUBLISHED = "#D55E00"
_RUNTIMES = {
    "onnx": "ONNX Runtime",
    "eager": "torch, eager",
    "compiled": "torch.compile",
    "cudagraphs": "CUDA graphs",
    "openvino": "OpenVINO",
}


def speedup_figure(
    comparisons: Sequence[Comparison],
    published: Mapping[str, tuple[float, float]] | None = None,
    annotate: Collection[str] = (),
) -> Figure:
    """A point per comparison, a colour per runtime, dtype, shape and form; the diagonal is the arithmetic's limit.

    ``published``: {label: (arithmetic ratio, published speed-up)}, drawn beside them, with the labels in ``annotate``
    written out. Raises ValueError for nothing to plot.
    """
    if not comparisons:
        raise ValueError("no comparison to plot")
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    groups: dict[str, list[Comparison]] = {}
    for c in comparisons:
        variant = c.small.name.partition(", ")[2]  # "19, plain": model 19 in another form
        label = ", ".join(
            filter(
                None, [_RUNTIMES.get(c.runtime, c.runtime), c.dtype, f"batch {c.batch} × {c.length} tokens", variant]
            )
        )
        groups.setdefault(label, []).append(c)
    for index, (label, members) in enumerate(groups.items()):
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index // len(_COLOURS) % len(_MARKERS)]
        ratios, speedups = [c.arithmetic_ratio for c in members], [c.speedup for c in members]
        axes.scatter(ratios, speedups, color=colour, marker=marker, s=36, label=label, zorder=3)
    for label, (ratio, speedup) in (published or {}).items():
        axes.scatter([ratio], [speedup], color=_PUBLISHED, marker="x", s=40, zorder=3)
        if label in annotate:
            axes.annotate(
                f"model {label}",
                (ratio, speedup),
                xytext=(-6, 3),
                ha="right",
                textcoords="offset points",
                fontsize=7,
                color=_PUBLISHED,
                zorder=4,
            )
    if published:
        axes.scatter([], [], color=_PUBLISHED, marker="x", label="published (RTX 3090, batch 128)")
    top = 1.1 * max(
        [max(c.arithmetic_ratio, c.speedup) for c in comparisons] + [max(p) for p in (published or {}).values()]
    )
    axes.plot([1, top], [1, top], color="#555555", linewidth=1, label="limit: time follows arithmetic")
    axes.set_xlim(1, top)
    axes.set_ylim(1, top)
    axes.set_title("Speed-up of small models, and what their arithmetic allows", fontsize=11)
    axes.set_xlabel("arithmetic: FLOPs of the original / FLOPs of the small model (×)")
    axes.set_ylabel("speed-up: time of the original / time of the small model (×)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure
