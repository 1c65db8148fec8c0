"""Operators of random programs, as text: what they add to ``__init__``, what they compute, how wide the result is.

Programs are text so that a failing one prints as the script that fails. Every value is (B, T, C), float64; ``C`` is the
width. A template's text may use

    {a} {b}   operands; {C} {D} their widths; {y} the result (only where ``code`` has statements before its last line)
    {i}       the step's number, for names of its own: ``self.l{i}``, ``t{i}``
    {j}       the number of the earlier step it shares modules with (``shares``)
    {name}    anything drawn from ``draws``

``forward`` also has x (B, T, 6), ids (B, T) in [0, 11), visible (B, T) bool with the first key visible, and B, T.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WIDTH = 6  # of the input x
VOCABULARY = 11


@dataclass(frozen=True)
class Template:
    """One operator.

    ``out``: the result's width, a Python expression in C, D and the draws. ``needs``: when it applies, likewise.
    ``other``: "same" if b must be as wide as a, "any" if not. ``shares``: the name of an earlier template whose modules
    ``code`` uses; then E and F are that step's input and output width. ``coarse``: the rounding of a dtype it goes
    through. ``random``: it draws random numbers when it runs. ``weight``: how often it is drawn.
    """

    code: str
    init: tuple[str, ...] = ()
    out: str = "C"
    needs: str = "True"
    other: str = "same"
    draws: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    shares: str = ""
    coarse: float = 0.0
    random: bool = False
    weight: float = 1.0


def each(*codes: str, **rest: Any) -> dict[str, Template]:
    """Several templates that differ in their text only, named by it."""
    return {code: Template(code, **rest) for code in codes}
