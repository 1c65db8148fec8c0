"""The pruning pattern as a picture: the paper's Figure 1, for a whole model.

One row per layer. Every matrix is laid out with the hidden size down and its inner features across, so that a head is a
vertical band of all four attention matrices, and an FFN dim a column of all FFN matrices.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from bpc.report.summary import BlockSummary, Layer, Matrix, Summary
from passes.structure.role import Family

# Okabe-Ito colours: distinct for colour-blind readers and in grey.
KEPT, ZERO, GONE = "#0072B2", "#F0C36D", "#EFEFEF"
_ROW_INCHES, _HEAD_INCHES, _WIDTH_INCHES = 0.62, 1.15, 13.0
_PIXELS_DOWN = 48


def pattern_figure(summary: Summary, title: str | None = None) -> Figure:
    """Draw kept weights against pruned ones, layer by layer, heads delimited. Save with ``.savefig(path, dpi=150)``."""
    layers = summary.layers
    if not layers:
        raise ValueError("no attention and no FFN was recognised in this graph: there is no pattern to draw")
    columns = _columns(layers)
    height = _HEAD_INCHES + _ROW_INCHES * len(layers)
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(layers),
        len(columns) + 1,
        width_ratios=[*(width for _, width in columns), 2.0],
        left=0.045,
        right=0.995,
        top=1 - 0.86 / height,
        bottom=0.1 / height,
        wspace=0.05,
        hspace=0.16,
    )
    for row, layer in enumerate(layers):
        matrices = {_column(m): m for block in layer.blocks for m in block.matrices}
        for position, (name, _) in enumerate(columns):
            axes = figure.add_subplot(grid[row, position])
            if name in matrices:
                _draw(axes, matrices[name])
            else:
                axes.set_axis_off()
            if row == 0:
                axes.set_title(name, fontsize=9, pad=4)
            if position == 0:
                axes.text(-0.15, 0.5, str(row), fontsize=9, va="center", ha="right", transform=axes.transAxes)
        note = figure.add_subplot(grid[row, len(columns)])
        note.set_axis_off()
        if row == 0:
            note.set_title("left, and weights kept", fontsize=9, pad=4)
        note.text(0.02, 0.5, _note(layer), fontsize=8, va="center", family="monospace", transform=note.transAxes)
    _legend(figure, height, title, summary)
    return figure


def _columns(layers: tuple[Layer, ...]) -> list[tuple[str, float]]:
    """(title, relative width) per matrix that occurs, attention first; widths follow the square root of the size."""
    sizes: dict[str, int] = {}
    for kind in (True, False):
        for layer in layers:
            for block in layer.blocks:
                for matrix in block.matrices:
                    if block.is_attention == kind:
                        sizes[_column(matrix)] = max(sizes.get(_column(matrix), 0), matrix.kept.shape[1])
    smallest = min(sizes.values())
    return [(name, (size / smallest) ** 0.5) for name, size in sizes.items()]


def _column(matrix: Matrix) -> str:
    kind = "" if matrix.role.role.family is Family.ATTENTION else "FFN "
    return kind + matrix.title.replace("_", " + ")


def _draw(axes: Axes, matrix: Matrix) -> None:
    axes.imshow(_image(matrix), aspect="auto", interpolation="nearest", extent=(0, 1, 1, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color("#555555")
    if matrix.heads:
        for head in range(1, matrix.heads):
            axes.axvline(head / matrix.heads, color="#8C8C8C", linewidth=0.5)


def _image(matrix: Matrix) -> np.ndarray:
    """RGB (rows, columns, 3): each pixel the mean colour of the entries it covers."""
    across = min(matrix.kept.shape[1], 12 * _PIXELS_DOWN)
    heads = matrix.heads or 1
    across = max(heads, across // heads * heads)  # whole pixels per head
    kept, present = matrix.kept, matrix.present
    shares = [_pool(m, across) for m in (kept & present, present & ~kept, ~present)]
    image = sum(share[..., None] * np.array(_rgb(c)) for share, c in zip(shares, (KEPT, ZERO, GONE), strict=True))
    return np.clip(np.asarray(image), 0.0, 1.0)


def _pool(mask: Tensor, across: int) -> np.ndarray:
    down = min(mask.shape[0], _PIXELS_DOWN)
    return adaptive_avg_pool2d(mask.float()[None], (down, across))[0].numpy()


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _note(layer: Layer) -> str:
    return "\n".join(_units(block) for block in layer.blocks)


def _units(block: BlockSummary) -> str:
    unit = "heads" if block.is_attention else "dims "
    return f"{block.units_left:>6,} of {block.units:>6,} {unit}  {block.parameters_kept / block.parameters:>4.0%}"


def _legend(figure: Figure, height: float, title: str | None, summary: Summary) -> None:
    handles = [
        Patch(facecolor=KEPT, label="kept"),
        Patch(facecolor=ZERO, label="pruned, zero in the small model"),
        Patch(facecolor=GONE, edgecolor="#999999", label="cut away"),
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(0.995, 1 - 0.06 / height),
        ncols=3,
        fontsize=9,
        frameon=False,
    )
    total = sum(b.parameters for b in summary.blocks)
    kept = sum(b.parameters_kept for b in summary.blocks)
    figure.text(0.045, 1 - 0.16 / height, title or "Pruning pattern", fontsize=12, weight="bold", va="top")
    figure.text(
        0.045,
        1 - 0.38 / height,
        f"{kept / 1e6:.1f} of {total / 1e6:.1f} million weights kept ({kept / total:.0%}). "
        "Rows: layers; hidden size down, heads or FFN dims across.",
        fontsize=9,
        va="top",
        color="#444444",
    )
