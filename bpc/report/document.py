"""A small report on disk: what was pruned, as text and pictures that open without the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from bpc.report.curves import curves_figure
from bpc.report.picture import pattern_figure
from bpc.report.summary import summarize
from bpc.report.table import pruning_markdown
from bpc.writing import new_files
from passes.driver import ShrinkResult

if TYPE_CHECKING:
    from bpc.dense import DenseModel

_DPI = 130


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
    summary = summarize(graph, masks, result.plan if result is not None else None)
    text = [f"# {title}", ""]
    if result is not None:
        text += ["```", str(result.report), "```", ""]
    text += ["## What is left", "", pruning_markdown(summary), "", "![kept weights against pruned](pattern.png)", ""]
    if not summary.compiled:
        text += ["The small model was not compiled yet: what it will have is estimated from the masks.", ""]
    with new_files(folder, keystones=("report.md",), replaces=("training.png",)) as staged:
        pattern_figure(summary, title).savefig(staged / "pattern.png", dpi=_DPI)
        if history is not None:
            curves_figure(history).savefig(staged / "training.png", dpi=_DPI)
            text += ["## Training", "", "![density, schedule and loss](training.png)", ""]
        (staged / "report.md").write_text("\n".join(text), encoding="utf-8")
    return Path(folder) / "report.md"
