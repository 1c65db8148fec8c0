"""n kept dims  ->  the next multiple of m: dead (zero) dims stay where they fill up the kernel's tile anyway.

Applies to FFN dims and the dims inside heads; heads themselves go one by one. Any index more that is kept is exact, as
every keep-set is a lower bound. A model that is trained on afterwards (fill) gets the zeros as capacity.

m is what the caller asked for, and along axes for which an operator takes no other counts (`Ties.multiples`) a multiple
of both.
"""

from __future__ import annotations

import math

import torch

from passes.analysis.coupling.ragged import solve_again
from passes.analysis.coupling.solver import Coupling, solve


def round_up(coupling: Coupling, multiple: int) -> None:
    """Keep the first dead indices of every free axis until their count divides by ``multiple`` (or all are kept).

    Left alone: pinned axes, counts of heads, flat axes of heads (they follow), and axes put together of pieces.
    """
    ties, number = coupling.ties, coupling.class_of
    needed = _needed(coupling)
    if multiple == 1 and not needed:
        return
    fixed = set(coupling.pinned)
    fixed |= {number[g.flat] for g in ties.grids} | {number[p] for g in ties.grids for p in g.parts[:-1]}
    fixed |= {number[p.whole] for p in ties.parts} | {number[a] for r in ties.repeats for a in (r.whole, r.part)}
    fixed |= {number[a] for c in ties.covers for a in (c.table, c.user)}
    for inner, rows in coupling.rows.items():
        coupling.rows[inner] = _fill(rows, math.lcm(multiple, needed.get(inner, 1)))
        _note(coupling, inner, needed)
    for index, kept in enumerate(coupling.keeps):
        if index in fixed or index in coupling.rows or not 0 < int(kept.sum()) < len(kept):
            continue
        more = _fill(kept, math.lcm(multiple, needed.get(index, 1)))
        if not torch.equal(more, kept):
            kept |= more
            coupling.seeds[index] |= more  # solving again must not lose them
            _note(coupling, index, needed)
    if coupling.rows:
        solve_again(coupling)
    else:
        solve(coupling)


def _needed(coupling: Coupling) -> dict[int, int]:
    """What the counts of classes have to divide by; that of an axis put together of pieces, those of its pieces."""
    ties, number = coupling.ties, coupling.class_of
    inside = [(number[p.whole], number[p.part]) for p in ties.parts if p.part is not None]
    inside += [(number[g.flat], number[g.parts[-1]]) for g in ties.grids]
    needed: dict[int, int] = {}
    found = [(number[axis], multiple) for axis, multiple in ties.multiples.items()]
    while found:
        index, multiple = found.pop()
        if needed.get(index, 1) % multiple:
            needed[index] = math.lcm(needed.get(index, 1), multiple)
            found += [(piece, needed[index]) for whole, piece in inside if whole == index]
    return needed


def _note(coupling: Coupling, index: int, needed: dict[int, int]) -> None:
    own = f"rounded up to a multiple of {needed[index]}: an operator takes no others" if index in needed else ""
    coupling.rounded[index] = own or "rounded up to a multiple, as asked for"


def _fill(kept: torch.Tensor, multiple: int) -> torch.Tensor:
    """Per row (last dim), the kept indices and the first others up to a multiple. Rows keep equally many."""
    count = int(kept.sum(-1).max())
    return with_first_others(kept, -(-count // multiple) * multiple)


def with_first_others(kept: torch.Tensor, count: int) -> torch.Tensor:
    """``kept`` (bool, indices last) and the first other indices, up to ``count`` (or all) in every row."""
    order = torch.argsort(~kept, dim=-1, stable=True)[..., :count]
    return torch.zeros_like(kept).scatter_(-1, order, True)
