"""Two results side by side, of which only what was measured alike is compared."""

from __future__ import annotations

import math

from rich.table import Table

from bpc.errors import MendableError
from bpc.results.result import Figure, Result, Value
from bpc.results.table import shown, titled


class ResultMismatch(MendableError):
    """Two figures of one name that were not measured alike."""


def difference_table(first: Result, second: Result, names: tuple[str, str] = ("first", "second")) -> Table:
    """The small models of two results (the originals, where a figure has no small one) and their difference.

    Figures that only one of them has are left out. Raises `ResultMismatch` for figures of one name with another unit,
    sample or workload, and where no figure is common to both.
    """
    others = {(f.name, _shape(f)): f for f in second.figures}
    by_name = {f.name: f for f in second.figures}
    pairs = []
    for figure in first.figures:
        other = others.get((figure.name, _shape(figure)), by_name.get(figure.name))
        if other is None:
            continue
        _check(figure, other, names)
        pairs.append((figure, other))
    if not pairs:
        raise ResultMismatch(f"{names[0]} and {names[1]} have no figure in common")
    table = Table(title=f"{names[0]} and {names[1]}")
    for column in ("", *names, "difference"):
        table.add_column(column, justify="right" if column else "left")
    for figure, other in pairs:
        values = [f.small or f.original for f in (figure, other)]
        table.add_row(titled(figure), *(shown(figure, v) for v in values), _difference(figure, *values))
    return table


def _shape(figure: Figure) -> tuple[tuple[str, str | int | float], ...]:
    return tuple(sorted(figure.workload.items()))


def _check(figure: Figure, other: Figure, names: tuple[str, str]) -> None:
    for what in ("unit", "workload", "sample"):
        mine, theirs = getattr(figure, what), getattr(other, what)
        if mine != theirs:
            raise ResultMismatch(
                f"{figure.name} does not compare: its {what} is {_told(mine)} in {names[0]}, {_told(theirs)} in "
                f"{names[1]}. Measure both alike"
            )


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {v}" for name, v in value.items()) or "not said"
    return "not said" if value is None else str(value)


def _difference(figure: Figure, first: Value | None, second: Value | None) -> str:
    if first is None or second is None:
        return ""
    change = second.value - first.value
    errors = [v.standard_error for v in (first, second)]
    error = None if None in errors else math.hypot(*(e for e in errors if e is not None))
    if figure.unit == "share":
        return f"{100 * change:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}") + " points"
    if figure.unit in ("s", "FLOP"):
        return f"{first.value / second.value:.2f}×" if second.value else ""
    if figure.unit in ("count", "bytes"):
        return "the same" if not change else f"{change / first.value:+.1%}" if first.value else f"{change:+,.0f}"
    return f"{change:+.3g}" + ("" if error is None else f" ± {error:.2g}")
