"""Which heads of an attention, or dims of an FFN, masks leave alive: read off the matrices around them.

A head lives if any of its value rows *and* any of its output columns is kept; an FFN dim if a row of every matrix into
it and the column of the one out of it is. An empty query or key leaves the mean of the values, which is not nothing.
An estimate, before anything is compiled: what is really cut is the analysis' business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from passes.structure.role import Part


@dataclass(frozen=True)
class Inner:
    """The side of a matrix that faces the heads or FFN dims.

    ``part``: what it does there (None: nothing known). ``kept``: (features,) bool, True where the
    mask leaves anything. ``tiles``: equal stretches that the dims repeat in (a fused gate and up).
    """

    part: Part | None
    kept: Tensor
    heads: int | None = None
    tiles: int = 1

    def units(self) -> Tensor | None:
        """(heads,) or (dims,) bool: those this matrix leaves; None if it says nothing about them."""
        if self.part in (Part.UP, Part.GATE, Part.GATE_UP, Part.DOWN):
            return self.kept.view(self.tiles, -1).all(0)
        if self.part in (Part.VALUE, Part.OUTPUT) and self.heads is not None:
            return self.kept.view(self.heads, -1).any(1)
        return None  # a fused query, key and value: one after the other, or head by head


def live_units(matrices: Iterable[Inner]) -> Tensor | None:
    """(units,) bool: what all the matrices of one attention or FFN leave; None if none of them says anything.

    Grouped values are repeated over the heads that read them.
    """
    alive: Tensor | None = None
    for units in (matrix.units() for matrix in matrices):
        if units is None:
            continue
        if alive is None:
            alive = units
            continue
        small, large = sorted((alive, units), key=Tensor.numel)
        if large.numel() % small.numel() == 0:
            alive = large & small.repeat_interleave(large.numel() // small.numel())
    return alive
