"""The report: one HTML file that opens anywhere, without the model and without a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor, fx

from bpc.report.costs import Arithmetic, arithmetic, layer_costs
from bpc.report.curves import History, curve_panels
from bpc.report.layers import Summary
from bpc.report.pattern import pattern_rows
from bpc.report.render import render
from bpc.report.summary import summarize
from bpc.writing import write_text
from passes.certificate import Certificate, hash_of
from passes.driver import ShrinkResult
from passes.explain import Explanation, State, explain

if TYPE_CHECKING:
    from bpc.dense import DenseModel

NAME = "report.html"

Figures: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]


def write_report(
    folder: str | os.PathLike[str],
    graph: fx.GraphModule,
    masks: Mapping[str, Tensor] | None,
    small: ShrinkResult | DenseModel | None = None,
    *,
    history: History | Mapping[str, History] | None = None,
    figures: Figures | None = None,
    commands: Sequence[str] = (),
    title: str = "Pruning report",
) -> Path:
    """Write ``report.html`` into ``folder`` and return its path.

    Args:
        folder: made where it is missing.
        graph: the dense traced graph.
        masks: what was pruned of it; None: its zeros.
        small: what `passes.shrink` (or ``program.shrink()``) made of both.
        history: the trainer's ``state.log_history``, or {phase: log} for several, such as pruning and filling.
        figures: what was measured, as the head and the rows of a table of text, such as
            ``(["", "original", "small"], [["accuracy", "80.4%", "79.8%"]])``.
        commands: what to type to do it again.
        title: the page's.
    """
    path = Path(folder) / NAME
    page = report_html(graph, masks, small, history=history, figures=figures, commands=commands, title=title)
    write_text(path, page)
    return path


def report_html(
    graph: fx.GraphModule,
    masks: Mapping[str, Tensor] | None,
    small: ShrinkResult | DenseModel | None = None,
    *,
    history: History | Mapping[str, History] | None = None,
    figures: Figures | None = None,
    commands: Sequence[str] = (),
    title: str = "Pruning report",
) -> str:
    """The text that `write_report` writes: equal for equal arguments."""
    summary = summarize(graph, masks, small.plan if small is not None else None)
    explanation = explain(graph, masks)
    costs = arithmetic(graph, small.graph_module if small is not None else None)
    certificate = small.certificate if small is not None else None
    return render(
        "report.html",
        title=title,
        sentence=_sentence(summary, *costs),
        summary=summary,
        rows=pattern_rows(summary, explanation),
        fates=_fates(summary, explanation),
        costs=layer_costs(summary, *costs),
        dense=costs[0],
        small=costs[1],
        figures=figures,
        panels=curve_panels(history) if history is not None else (),
        report=small.report if small is not None else None,
        certificate=certificate,
        hashes=_hashes(certificate),
        commands=tuple(commands),
    )


def _sentence(summary: Summary, dense: Arithmetic | None, small: Arithmetic | None) -> str:
    """The result in one sentence."""
    total = sum(b.parameters for b in summary.blocks)
    if not total:
        return "No attention and no feed-forward network was recognised in this model."
    left = sum(b.parameters_present for b in summary.blocks)
    if left == total and all(b.parameters_kept == b.parameters for b in summary.blocks):
        return f"Nothing was pruned: all {_short(total)} weights of the layers are there."
    units = [
        f"{have:,} of {of:,} {name}"
        for attention, name in ((True, "heads"), (False, "FFN dims"))
        for have, of in [summary.units(attention=attention)]
        if of
    ]
    text = f"{' and '.join(units)} are left, with {_short(left)} of {_short(total)} weights of the layers"
    if left < total:
        text += f" (−{1 - left / total:.1%})"
    if summary.padding:
        text += f", {summary.padding:.1%} of them zeros that make the heads of a layer equally wide,"
    if dense is not None and small is not None and small.total:
        text += f" and {_ratio(dense.total / small.total)} arithmetic"
    return text + ("." if summary.compiled else ", as estimated from the masks.")


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}× less" if ratio >= 1.005 else "the same"


def _short(number: float) -> str:
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.1f} {name}"
    return f"{number:,.0f}"


# The states of `passes.explain`, in its order, in words.
_MEANING: dict[State, str] = {
    "live": "stays: the outputs depend on it",
    "dead": "gone: nothing that lives reads it, or it is always 0",
    "constant": "gone: it is one number whatever the input, and was added to the bias behind it",
    "pinned": "stays although nothing needs it: it shares its place with what does",
}


def _fates(summary: Summary, explanation: Explanation) -> list[tuple[str, int, int]]:
    """(meaning, heads, FFN dims) for each state that occurs in the layers."""
    shown = {block.block_id for block in summary.blocks}
    blocks = [block for block in explanation.blocks if block.name in shown]
    found = []
    for state, meaning in _MEANING.items():
        heads, dims = (sum(block.count(state) for block in blocks if block.kind == kind) for kind in ("head", "dim"))
        if heads or dims:
            found.append((meaning, heads, dims))
    return found


def _hashes(certificate: Certificate | None) -> list[tuple[str, int, str]]:
    """(what, tensors, one hash of them all)."""
    if certificate is None:
        return []
    sides = (("masked original", certificate.masked), ("small model", certificate.small))
    return [(name, len(tensors), hash_of(dict(tensors))) for name, tensors in sides]
