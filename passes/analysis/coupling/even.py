"""One head size per attention: q/k dims and v dims keep equally many, the smaller padded with dead dims.

A module's forward views q, k and v with one number. Any index more that is kept is exact, as every keep-set is a lower
bound; see "even" of `passes.options.ShrinkOptions`.
"""

from __future__ import annotations

import networkx as nx

from passes.analysis.coupling.ragged import solve_again
from passes.analysis.coupling.round_up import with_first_others
from passes.analysis.coupling.solver import Coupling


def even_heads(coupling: Coupling) -> None:
    """Grow the dims inside heads until all of them that share their heads have the same count."""
    groups = _sharing_heads(coupling)
    while True:
        grown = False
        for inners in groups:
            wanted = max(_count(coupling, inner) for inner in inners)
            for inner in inners:
                if _count(coupling, inner) < min(wanted, len(coupling.keeps[inner])):
                    _grow(coupling, inner, wanted)
                    grown = True
        if not grown:
            return
        solve_again(coupling)


def _sharing_heads(coupling: Coupling) -> list[list[int]]:
    """Classes of dims inside heads, those that some heads have in common together.

    A grid of heads, as grouped queries view theirs (key heads, heads per group), holds no dims.
    """
    number = coupling.class_of
    grids = [g for g in coupling.ties.grids if len(g.parts) == 2]
    heads = {number[g.parts[0]] for g in grids}
    graph: nx.Graph[int] = nx.Graph()
    graph.add_edges_from((number[g.parts[0]], number[g.parts[1]]) for g in grids if number[g.flat] not in heads)
    inner = {number[g.parts[1]] for g in grids if number[g.flat] not in heads} - heads
    return [sorted(inner & component) for component in nx.connected_components(graph) if inner & component]


def _count(coupling: Coupling, inner: int) -> int:
    rows = coupling.rows.get(inner)
    return int(coupling.keeps[inner].sum()) if rows is None else int(rows[0].sum())


def _grow(coupling: Coupling, inner: int, wanted: int) -> None:
    """Keep the first dead dims as well, in every head that has dims of its own."""
    ragged = inner in coupling.rows
    kept = coupling.rows[inner] if ragged else coupling.keeps[inner]
    more = with_first_others(kept, wanted)
    if ragged:
        coupling.rows[inner] = more
    else:
        coupling.seeds[inner] |= more
