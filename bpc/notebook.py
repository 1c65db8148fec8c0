"""What objects show in a notebook: a line in words, and tables. Everything is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from passes.plan.data import PlanData


def line(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], folded: str | None = None) -> str:
    """A table; with ``folded``, behind these words until it is asked for."""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    text = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return text if folded is None else f"<details><summary>{escape(folded)}</summary>{text}</details>"


def cuts(plan: PlanData) -> str:
    """The tensors that a plan cuts, before and after, behind their number."""
    sizes = ((cut.parameter, cut.shape, plan.small_shape(cut.parameter, cut.shape)) for cut in plan.cuts)
    rows = ((name, *("×".join(map(str, shape)) for shape in pair)) for name, *pair in sizes)
    return table(("tensor", "original", "small"), rows, f"{len(plan.cuts):,} tensors were cut")
