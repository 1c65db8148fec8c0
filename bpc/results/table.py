"""Results as tables: one row a figure."""

from __future__ import annotations

from rich.table import Table

from bpc.results.result import Figure, Result, Value

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def result_table(result: Result) -> Table:
    """Original and small side by side; columns nobody has a value for are left out."""
    head, rows = cells(result)
    sides = [column for column in head if column]
    table = Table(title=" and ".join(sides) + f", bpc {result.command}", caption="; ".join(result.notes) or None)
    for i, column in enumerate(head):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    return table


def result_markdown(result: Result) -> str:
    """The same for a page or a model card."""
    head, rows = cells(result)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([text, *result.notes])


def cells(result: Result) -> tuple[list[str], list[list[str]]]:
    """The head and the rows as text."""
    sides = [side for side in ("original", "small") if any(getattr(f, side) is not None for f in result.figures)]
    both = len(sides) == 2
    rows = [
        [titled(f), *(shown(f, getattr(f, side)) for side in sides), *([changed(f)] if both else ())]
        for f in result.figures
    ]
    return ["", *sides, *([""] if both else ())], rows


def titled(figure: Figure) -> str:
    """The figure's name with what matters of its workload."""
    w = figure.workload
    if figure.unit == "s":
        kind = "" if w.get("dtype", "float32") == "float32" else f" {w['dtype']}"
        name = "ONNX Runtime" if w.get("runtime") == "onnx" else str(w.get("runtime", figure.name))
        return f"{name}{kind}, {w['batch']} × {w['length']}" if {"batch", "length"} <= w.keys() else name
    return figure.name


def shown(figure: Figure, value: Value | None) -> str:
    """A value with its unit and standard error."""
    if value is None:
        return ""
    v, error = value.value, value.standard_error
    if figure.unit == "share":
        return f"{v:.2%}" + ("" if error is None else f" ± {error:.2%}")
    if figure.unit == "count":
        return f"{v:,.0f}"
    if figure.unit == "s":
        return f"{1e3 * v:.1f} ms" if v < 10 else f"{v:.1f} s"
    if figure.unit == "ratio":
        return f"{v:.2f}"
    if figure.unit in ("bytes", "FLOP"):
        size, prefix = next(((s, p) for s, p in _PREFIXES if abs(v) >= s), (1.0, ""))
        return f"{v / size:.1f} {prefix}{'B' if figure.unit == 'bytes' else 'FLOP'}"
    return f"{v:.4g}" + ("" if error is None else f" ± {error:.2g}")


def changed(figure: Figure) -> str:
    """From the original to the small model: points, a factor, or a share."""
    if figure.unit == "ratio" or figure.original is None or figure.small is None:
        return ""
    before, after = figure.original.value, figure.small.value
    if figure.unit == "share":
        return f"{100 * (after - before):+.2f} points"
    if figure.unit in ("s", "FLOP"):
        return f"{before / after:.2f}×" if after else ""
    if figure.unit == "1":
        return f"{after - before:+.3g}"
    return "nothing removed" if after == before else f"{after / before - 1:+.1%}" if before else ""
