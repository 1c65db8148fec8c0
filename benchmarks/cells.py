"""What the tables of docs/results.md are made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = [f"| {' | '.join(cells)} |" for cells in [heads, *rows]]
    lines.insert(1, "|---|" + "---:|" * (len(heads) - 1))
    return "\n".join(lines)


def percent(share: float, count: int) -> str:
    """With the standard error of a share of so many examples."""
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / count):.1f}"


def lost(found: Row, dense: Row, count: int) -> str:
    """Points below the dense model, with the standard error of the difference on the same examples."""
    worse, better = found["only dense right"], found["only small right"]
    error = math.sqrt(max(0.0, worse + better - (worse - better) ** 2 / count)) / count
    return f"{100 * (dense['accuracy'] - found['accuracy']):+.1f} ± {100 * error:.1f}"


def mean(values: Iterable[float], show: Callable[[float], str]) -> str:
    """And the range, where they differ; "–" for none."""
    values = list(values)
    if not values:
        return "–"
    if len({show(value) for value in values}) == 1:
        return show(values[0])
    return f"{show(statistics.mean(values))} ({show(min(values))} … {show(max(values))})"


def made(data: Row) -> str:
    """Where and from what a table was made."""
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    sources = sorted({f"{row['sources'][:12]}…" for row in data["rows"].values()})
    return (
        f"Made by `{data['command']}` on {machine['cpu']}, {machine['threads']} thread(s) for torch; {versions}. "
        f"sha256 of the model {data['about']['model']['sha256'][:12]}…, of bpc's sources {', '.join(sources)}"
    )
