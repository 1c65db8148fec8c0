"""Templates to text. Everything is escaped; style and script lie inside the page."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("bpc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["grouped"] = "{:,}".format
    found.filters["short"] = short
    found.filters["power"] = power
    return found


def render(template: str, **values: Any) -> str:
    """A template of this package, filled in. A value it lacks is an error."""
    return _environment().get_template(template).render(values)


def short(number: float) -> str:
    """Three digits and a prefix: "1.23 M"."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g} {prefix}" if abs(number) < 999.5 * size else f"{number / size:,.0f} {prefix}"
    return f"{number:g}"


def power(number: float | str) -> str:
    """ "1.23e-06"; what JSON has no number for, as the word it is."""
    return number if isinstance(number, str) else f"{number:.2e}"
