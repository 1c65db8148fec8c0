"""Which axes must shrink together, and what each keeps.

Axes tied by *same* form coupling classes (connected components, networkx). Each class keeps one set of indices: the
least one that contains everything live and satisfies the other relations (grid, part, repeats, covers, pin). All of
them only ever add indices, so iterating to a fixpoint terminates; two or three sweeps suffice in practice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import networkx as nx
import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from passes.analysis.unread import unread_indices
from passes.ir.sizes import reads_sizes_only, shape_of, tensor_inputs, tensor_of
from passes.ops.arguments import argument, first_argument
from passes.ops.facts import Axis, along, axis
from passes.ops.table import find_tables
from passes.ops.ties import Cover, Grid, Part, Repeat, Ties


@dataclass
class Coupling:
    """The solved relations. ``keep(node, dim)`` answers for one axis."""

    ties: Ties
    members: list[frozenset[Axis]]  # of every class
    class_of: dict[Axis, int]
    keeps: list[torch.Tensor]  # bool, per class
    pinned: dict[int, str]  # class -> first reason
    seeds: list[torch.Tensor] = field(default_factory=list)  # keeps before solving: live or pinned
    rows: dict[int, torch.Tensor] = field(default_factory=dict)  # ragged class -> (heads, dims) bool, see `ragged`
    unread: dict[int, torch.Tensor] = field(default_factory=dict)  # class -> indices that only other sizes may read
    rounded: dict[int, str] = field(default_factory=dict)  # class -> why it keeps dead indices, see `round_up`
    filled: set[int] = field(default_factory=set)  # classes that keep one dead index, so as not to be empty

    def keep(self, node: fx.Node, dim: int) -> torch.Tensor | None:
        """Kept indices of a channel dim, bool of its size; None for data dims and sizes of 1."""
        return self.keep_axis(axis(node, dim))

    def keep_axis(self, found: Axis | None) -> torch.Tensor | None:
        return None if found is None or found not in self.class_of else self.keeps[self.class_of[found]]

    def count(self, node: fx.Node, dim: int) -> int | None:
        """How many indices a channel dim keeps; None where it does not shrink."""
        found = axis(node, dim)
        if found is None or found not in self.class_of:
            return None
        number = self.class_of[found]
        if number in self.rows:
            return int(self.rows[number][0].sum())
        kept = self.keeps[number]
        return None if bool(kept.all()) else int(kept.sum())

    def reason(self, found: Axis) -> str | None:
        return self.pinned.get(self.class_of[found])


def collect_ties(constants: Constants) -> Ties:
    """Ask every operator's rule for the relations it imposes; what a rule does not mention keeps all indices."""
    graph = constants.graph_module.graph
    ties = Ties(find_tables(graph))
    for node in graph.nodes:
        if node.op == "placeholder" and tensor_of(node) is not None:
            ties.pin(node, None, "an input of the model")
        elif node.op == "call_function" and tensor_of(node) is not None:
            _tie(node, ties, constants)
        elif reads_sizes_only(node):
            _pin_sizes_read(node, ties)
        elif node.op == "output":
            for source in tensor_inputs(node):
                ties.sums_over(node, source, range(len(shape_of(source))), "an output of the model")
        else:
            for source in tensor_inputs(node):
                ties.pin(source, None, "used by an operator without a transfer rule")
    return ties


def _pin_sizes_read(node: fx.Node, ties: Ties) -> None:
    """A size that the model reads must not change; a symbolic one comes from the inputs anyway."""
    source, dim = first_argument(node), argument(node, "dim")
    whole = node.target is not torch.ops.aten.sym_size.int  # numbers of entries and strides depend on every dim
    ties.pin(source, None if whole else [dim], "its size is read by the model")


def _tie(node: fx.Node, ties: Ties, constants: Constants) -> None:
    rule = constants.rule(node)
    ties.mentioned()
    try:
        rule.ties(node, ties, constants)
    except Exception as error:  # a call the rule was not written for: nothing around it shrinks
        constants.fail(node, error)
        for value in (node, *tensor_inputs(node)):
            ties.pin(value, None, f"the rule of {node.target} failed here")
    mentioned = ties.mentioned()
    left_out = tensor_inputs(node) if rule.resize is not None else [node, *tensor_inputs(node)]
    for value in left_out:
        for dim in range(len(shape_of(value))):
            found = ties.axis(value, dim)
            if found is not None and found not in mentioned:
                ties.pin_axis(found, f"{node.target} does not say what becomes of it")


def couple(constants: Constants, liveness: Liveness, whole: str = "dims") -> Coupling:
    """Solve the relations of a graph for the least keep-sets above liveness.

    ``whole`` = "even" selects nothing at its use, "heads" keeps the dims inside a head together as well, "units" the
    heads (see `ShrinkOptions`).
    """
    ties = collect_ties(constants)
    if whole != "dims":
        _keep_whole(ties, whole)
    _tie_equal_grids(ties)
    members = [frozenset(c) for c in nx.connected_components(ties.graph)]
    class_of = {a: number for number, component in enumerate(members) for a in component}
    keeps = [torch.zeros(ties.sizes[next(iter(c))], dtype=torch.bool) for c in members]
    pinned: dict[int, str] = {}
    for found, reason in ties.pins.items():
        keeps[class_of[found]][:] = True
        pinned.setdefault(class_of[found], reason)
    coupling = Coupling(ties, members, class_of, keeps, pinned)
    for node, live in liveness.live.items():
        for dim in range(len(shape_of(node))):
            kept = coupling.keep(node, dim)
            if kept is not None:
                kept |= along(live, dim)
    for found, left_out in unread_indices(constants):
        if found in class_of:
            number = class_of[found]
            keeps[number] |= left_out
            coupling.unread[number] = left_out | coupling.unread.get(number, left_out)
    coupling.seeds = [k.clone() for k in keeps]
    solve(coupling)
    return coupling


def _keep_whole(ties: Ties, whole: str) -> None:
    """For the module view, whose forward selects nothing: groups of heads stay rectangular, a table keeps what all its
    users keep, and heads (or all heads) stay whole."""
    for repeat in ties.repeats:
        ties.grid(repeat.part, [repeat.whole, repeat.copies or ties.virtual(repeat.group)])
    ties.repeats.clear()
    for cover in ties.covers:
        ties.same(cover.table, cover.user)
    ties.covers.clear()
    if whole == "even":
        return
    for grid in ties.grids:
        for part in grid.parts if whole == "units" else grid.parts[1:]:
            ties.pins.setdefault(part, "heads stay whole in the module view")


def _tie_equal_grids(ties: Ties) -> None:
    """Axes that view the same flat axis in the same way are the same (layers that share their weights)."""
    while True:
        class_of = {a: n for n, c in enumerate(nx.connected_components(ties.graph)) for a in c}
        first: dict[tuple[int, tuple[int, ...]], Grid] = {}
        tied = False
        for grid in ties.grids:
            other = first.setdefault((class_of[grid.flat], grid.sizes), grid)
            for a, b in zip(grid.parts, other.parts, strict=True):
                if class_of[a] != class_of[b]:
                    ties.same(a, b)
                    tied = True
        if not tied:
            return


def solve(coupling: Coupling) -> None:
    """Grow the keep-sets until every relation holds."""
    while True:
        before = [int(k.sum()) for k in coupling.keeps]
        for grid in coupling.ties.grids:
            _grow_grid(coupling, grid)
        for part in coupling.ties.parts:
            _grow_part(coupling, part)
        for repeat in coupling.ties.repeats:
            _grow_repeat(coupling, repeat)
        for cover in coupling.ties.covers:
            _grow_cover(coupling, cover)
        if before == [int(k.sum()) for k in coupling.keeps]:
            return


def _grow_grid(coupling: Coupling, grid: Grid) -> None:
    """Rectangular: the flat axis keeps exactly the outer product of what its parts keep."""
    flat = coupling.keeps[coupling.class_of[grid.flat]]
    table = flat.view(grid.sizes)
    rows = coupling.rows.get(coupling.class_of[grid.parts[-1]])
    if rows is not None:  # every kept head keeps its own dims, equally many
        heads = coupling.keeps[coupling.class_of[grid.parts[0]]]
        heads |= table.any(1)
        flat |= (heads.unsqueeze(1) & rows_for(rows, len(heads))).flatten()
        return
    parts = [coupling.keeps[coupling.class_of[p]] for p in grid.parts]
    for dim, kept in enumerate(parts):
        kept |= along(table, dim)
    product = parts[0]
    for kept in parts[1:]:
        product = (product.unsqueeze(-1) & kept).flatten()
    flat |= product


def _grow_part(coupling: Coupling, part: Part) -> None:
    whole = coupling.keeps[coupling.class_of[part.whole]]
    if part.part is None:
        whole[part.index] = True
        return
    piece = coupling.keeps[coupling.class_of[part.part]]
    piece |= whole[part.index]
    whole[part.index[piece]] = True


def rows_for(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """The ragged rows of an axis of ``heads`` heads: those of its key head for each query head of a group."""
    return rows if len(rows) == heads else rows.repeat_interleave(heads // len(rows), 0)


def _grow_repeat(coupling: Coupling, repeat: Repeat) -> None:
    whole = coupling.keeps[coupling.class_of[repeat.whole]]
    part = coupling.keeps[coupling.class_of[repeat.part]]
    whole |= part.view(-1, repeat.group).any(1)


def _grow_cover(coupling: Coupling, cover: Cover) -> None:
    table = coupling.keeps[coupling.class_of[cover.table]]
    table |= coupling.keeps[coupling.class_of[cover.user]]
