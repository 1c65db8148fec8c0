"""The axis of a residual stream, and what it takes to keep only some of its channels *on purpose*.

Zeros alone never narrow it: a mean over fewer channels is another mean, so everything a norm reads stays. A width mask
says what is meant instead: whatever computes one number of all channels (a norm, a mean, a product with a matrix) takes
the kept ones alone. That model can be cut exactly, if all that lies along the axis treats channels one by one or is
such a sum.

    along the axis      embeddings, rows and columns of linears, biases, affine weights, position tables, values
    sums over it        norms, reductions, products with parameters, outputs of the model (which get narrower)
    refused             views as heads, slices, concatenations, products of two computed values, inputs of the model
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.coupling.solver import collect_ties
from passes.ir.sizes import is_parameter
from passes.ops import attention, matmul
from passes.ops.facts import Axis, axis
from passes.ops.rule import Kind
from passes.ops.table import kind_of
from passes.ops.ties import Ties


@dataclass(frozen=True)
class SharedAxis:
    """``axes`` that have to keep the same channels, ``size`` of them; ``refusal``: why not fewer, None if they can."""

    axes: frozenset[Axis]
    size: int
    refusal: str | None

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """{parameter or buffer: its dims along the axis}."""
        found: dict[str, tuple[int, ...]] = {}
        for a in sorted(a for a in self.axes if a.value.startswith("@")):
            found[a.value[1:]] = (*found.get(a.value[1:], ()), a.dim)
        return found


@dataclass(frozen=True)
class Narrowing:
    """Which channels axes keep: ``kept``, bool of their size. ``sums``: (node, its source, dim) along them, by name.

    Answers what rules ask when literal sizes have to follow (`passes.ops.rule.Keeps`).
    """

    kept: Mapping[Axis, torch.Tensor]
    sums: tuple[tuple[str, str, int], ...]

    def keep(self, node: fx.Node, dim: int) -> torch.Tensor | None:
        found = axis(node, dim)
        return None if found is None else self.kept.get(found)

    def count(self, node: fx.Node, dim: int) -> int | None:
        kept = self.keep(node, dim)
        return None if kept is None else int(kept.sum())

    def of_parameter(self, name: str, rank: int) -> dict[int, torch.Tensor]:
        """{dim of a parameter along the axes: what it keeps}."""
        own = ((dim, self.kept.get(Axis(f"@{name}", dim))) for dim in range(rank))
        return {dim: kept for dim, kept in own if kept is not None}


class Widths:
    """The shared axes of a traced graph."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        with torch.no_grad():
            self._ties = collect_ties(Constants(graph_module))
        graph = self._ties.graph.copy()
        graph.add_edges_from((cover.table, cover.user) for cover in self._ties.covers)
        self._members = [frozenset(component) for component in nx.connected_components(graph)]
        self._class_of = {a: number for number, own in enumerate(self._members) for a in own}
        self._products = list(_summed_by_products(graph_module.graph))

    def of(self, found: Axis) -> SharedAxis | None:
        """What shares an axis with ``found``; None for one that the graph does not have."""
        if found not in self._class_of:
            return None
        axes = self._members[self._class_of[found]]
        return SharedAxis(axes, self._ties.sizes[found], self._refusal(axes))

    def _refusal(self, axes: frozenset[Axis]) -> str | None:
        for found in sorted(axes & self._ties.fixed.keys()):
            return f"{found}: {self._ties.fixed[found]}"
        for found in sorted(_pieces(self._ties) & axes):
            return f"{found} is viewed as heads, sliced, concatenated or repeated along its channels"
        for found in sorted(axes & self._ties.multiples.keys()):
            return f"an operator takes only multiples of {self._ties.multiples[found]} along {found}"
        for found, node in self._products:
            if found in axes:
                return f"{node} multiplies two computed values along {found}"
        return None

    def narrowing(self, kept: Iterable[tuple[SharedAxis, torch.Tensor]]) -> Narrowing:
        """The given axes with what they keep, bool of their sizes."""
        by_axis = {a: keep for shared, keep in kept for a in shared.axes}
        sums = ((s.node.name, s.source.name, s.dim) for s in self._ties.sums if axis(s.source, s.dim) in by_axis)
        return Narrowing(by_axis, tuple(sums))


def _pieces(ties: Ties) -> set[Axis]:
    """Axes of which others are parts, or that are parts of others."""
    found: set[Axis] = set()
    for grid in ties.grids:
        found.update((grid.flat, *grid.parts))
    for part in ties.parts:
        found.update((part.whole,) if part.part is None else (part.whole, part.part))
    for repeat in ties.repeats:
        found.update((repeat.whole, repeat.part))
    return found


def _summed_by_products(graph: fx.Graph) -> Iterable[tuple[Axis, fx.Node]]:
    """Axes that a product of two computed values sums over: no mask of a parameter leaves channels out of it."""
    for node in graph.nodes:
        kind = kind_of(node)
        if kind is Kind.MATMUL:
            pair = matmul.operands(node)
        elif kind is Kind.ATTENTION:
            pair = attention.operands(node)[:2]
        else:
            continue
        if not any(map(is_parameter, pair)):
            found = axis(pair[0], -1)
            if found is not None:
                yield found, node
