"""Why an axis keeps an index that is zero in some parameter: the text of reports."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from passes.analysis.coupling.solver import Coupling

ROTARY = "pinned: rotary pairs: dims rotate into each other, by angles that all heads share"


def why_kept(
    coupling: Coupling, number: int, empty: torch.Tensor, asked: frozenset[int] = frozenset()
) -> Iterator[str]:
    """Reasons why the class ``number`` keeps the indices ``empty`` (bool, of its size), the first that applies to each.

    Pieces of an axis (fused projections) and dims inside heads answer for the axis that is made of them. ``asked``:
    the classes on the way here; a class may be a piece of itself (x beside its mirror image), and answers once.
    """
    if number in coupling.pinned:
        yield f"pinned: {coupling.pinned[number]}"
    elif number in coupling.unread and bool((empty & coupling.unread[number]).any()):
        yield "not read at the example's sizes, which the trace fixed; the module may be given others"
    elif number in coupling.rounded:
        yield coupling.rounded[number]
    elif number in coupling.filled:
        yield "needed: an axis that is in use keeps one index"
    elif _rotates(coupling, number):
        yield ROTARY
    else:
        asked |= {number}
        pieces = [
            reason
            for piece, part in _pieces(coupling, number, empty)
            if piece not in asked
            for reason in why_kept(coupling, piece, part, asked)
        ]
        yield from pieces or _why_heads_keep(coupling, number, asked)


def _pieces(coupling: Coupling, number: int, empty: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Classes that lie within this one, and which of their indices are asked about."""
    for part in coupling.ties.parts:
        piece = None if part.part is None else coupling.class_of[part.part]
        if coupling.class_of[part.whole] == number and piece is not None and bool(empty[part.index].any()):
            yield piece, empty[part.index]


def _why_heads_keep(coupling: Coupling, number: int, asked: frozenset[int]) -> Iterator[str]:
    for grid in coupling.ties.grids:
        if coupling.class_of[grid.flat] != number:
            continue
        heads, inner = (coupling.class_of[p] for p in (grid.parts[0], grid.parts[-1]))
        if inner in coupling.rows:
            reason = "padding: every head keeps as many dims as the largest of its layer"
        elif heads in coupling.pinned:
            reason = f"pinned: {coupling.pinned[heads]}"
        elif inner in asked:
            reason = SHARED
        else:
            everything = torch.ones(grid.sizes[-1], dtype=torch.bool)
            reason = next(why_kept(coupling, inner, everything, asked))
            if reason == SHARED:
                reason = "needed: all heads of a layer keep the same dims here"
        yield reason
        return
    yield SHARED


SHARED = "needed: another value on the same axis, or another use of the weight, is not zero there"


def _rotates(coupling: Coupling, number: int) -> bool:
    """Two different stretches of the dims inside a head meet in one piece: x · cos + rotate(x) · sin swaps halves."""
    if not any(coupling.class_of[grid.parts[-1]] == number for grid in coupling.ties.grids):
        return False  # halves of a fused gate and up projection meet as well
    stretches: dict[int, set[tuple[int, ...]]] = {}
    for part in coupling.ties.parts:
        if part.part is not None and coupling.class_of[part.whole] == number:
            found = stretches.setdefault(coupling.class_of[part.part], set())
            found.add(tuple(part.index.tolist()))
    return any(len(found) > 1 for found in stretches.values())
