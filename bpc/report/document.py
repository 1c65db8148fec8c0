"""A small report on disk: what was pruned, as text and pictures that open without the model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from torch import Tensor, fx

from bpc.report.curves import curves_figure
from bpc.report.picture import pattern_figure
from bpc.report.summary import summarize
from bpc.report.table import pruning_markdown
from passes.driver import ShrinkResult

if TYPE_CHECKING:
    from bpc.dense import DenseModel


def write_report(
    folder: str | os.PathLike[str],
    graph: fx.GraphModule,
    masks: Mapping[str, Tensor] | None,
    result: ShrinkResult | DenseModel | None = None,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    title: str = "Pruning report",
) -> Path:
    """Write ``report.md``, ``pattern.png`` and (with a training log) ``training.png`` into ``folder``.

    ``graph`` is the dense traced graph, ``masks`` what was pruned of it (None: its zeros), ``result`` what
    `passes.shrink` (or ``program.shrink()``) made of both, ``history`` the trainer's ``state.log_history``. Returns the
    path of report.md.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarize(graph, masks, result.plan if result is not None else None)
    text = [f"# {title}", ""]
    if result is not None:
        text += ["```", str(result.report), "```", ""]
    _save(pattern_figure(summary, title), folder / "pattern.png")
    text += ["## What is left", "", pruning_markdown(summary), "", "![kept weights against pruned](pattern.png)", ""]
    if not summary.compiled:
        text += ["The small model was not compiled yet: what it will have is estimated from the masks.", ""]
    if history is not None:
        _save(curves_figure(history), folder / "training.png")
        text += ["## Training", "", "![density, schedule and loss](training.png)", ""]
    staged = folder / ".report.md.tmp"
    staged.write_text("\n".join(text))
    os.replace(staged, folder / "report.md")
    return folder / "report.md"


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as staging:
        staged = Path(staging) / path.name
        figure.savefig(staged, dpi=130)
        os.replace(staged, path)
