"""The relations between axes that the operators of a graph impose; collected here, solved in `coupling`.

same      two axes keep the same indices
grid      a flat axis is the row-major product of others (views: F <-> (H, D))
part      index k of one axis is index ``index[k]`` of another (slice, cat, flip); of no other axis: these must stay
          (select)
repeats   index k of one axis reads index ``k // group`` of another (grouped queries); uneven groups select at the use
covers    a table keeps at least what its user keeps; the user selects
pin       all indices stay, with the reason
sums      all indices stay because one number is computed of them (a mean, a norm): a pin, but for a residual width that
          is narrowed on purpose (`passes.analysis.width`)
free      any size will do
multiple  beside a relation: counts of kept indices that the operator takes
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import networkx as nx
import torch
from torch import fx

from passes.ir.sizes import is_parameter, is_static, reshape_groups, shape_of
from passes.ops.arguments import first_argument
from passes.ops.facts import Axis, axis

aten = torch.ops.aten


@dataclass(frozen=True)
class Grid:
    flat: Axis
    parts: tuple[Axis, ...]
    sizes: tuple[int, ...]  # of the parts, sizes of 1 left out


@dataclass(frozen=True)
class Part:
    whole: Axis
    part: Axis | None  # None: the whole needs these indices as long as the graph runs
    index: torch.Tensor


@dataclass(frozen=True)
class Cover:
    """``user`` reads ``table`` through argument ``operand`` of ``node``; it may select the indices it keeps."""

    table: Axis
    user: Axis
    node: fx.Node
    operand: fx.Node
    dim: int  # of the operand


@dataclass(frozen=True)
class Repeat:
    """Heads ``part`` read heads ``whole`` in groups of ``group``: part keeps what it likes, whole what part reads.

    ``node`` is the operator that repeats: a reshape of an expanded dim, repeat_interleave or a grouped attention;
    ``operand`` is the value whose dim ``dim`` is ``whole``; ``copies`` is the expanded dim of the reshape's source.
    """

    whole: Axis
    part: Axis
    group: int
    node: fx.Node
    operand: fx.Node
    dim: int
    copies: Axis | None = None


class Sum(NamedTuple):
    """``node`` computes something of all indices of a dim of ``source``: over fewer it is another number."""

    node: fx.Node
    source: fx.Node
    dim: int


@dataclass
class Ties:
    tables: frozenset[fx.Node]
    graph: nx.Graph = field(default_factory=nx.Graph)
    sizes: dict[Axis, int] = field(default_factory=dict)
    grids: list[Grid] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    covers: list[Cover] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    pins: dict[Axis, str] = field(default_factory=dict)
    multiples: dict[Axis, int] = field(default_factory=dict)
    fixed: dict[Axis, str] = field(default_factory=dict)  # those of the pins that no sum is the reason for
    sums: list[Sum] = field(default_factory=list)
    _mentioned: set[Axis] = field(default_factory=set)
    _virtual: int = 0

    def mentioned(self) -> set[Axis]:
        """The axes that relations were given for since the last call."""
        found, self._mentioned = self._mentioned, set()
        return found

    def free(self, node: fx.Node) -> None:
        """No relation binds the axes of this value here: an operator takes its dtype only, or follows any size."""
        for dim in range(len(shape_of(node))):
            self._mention(self.axis(node, dim))

    def _mention(self, *axes: Axis | None) -> None:
        self._mentioned.update(a for a in axes if a is not None)

    def axis(self, node: fx.Node, dim: int) -> Axis | None:
        """The axis of a channel dim, made known to the graph; None for data dims and sizes of 1."""
        found = axis(node, dim)
        if found is not None and found not in self.sizes:
            self.sizes[found] = shape_of(node)[found.dim]
            self.graph.add_node(found)
        return found

    def virtual(self, size: int) -> Axis:
        self._virtual += 1
        found = Axis(f"#{self._virtual}", 0)
        self.sizes[found] = size
        self.graph.add_node(found)
        return found

    def same(self, a: Axis | None, b: Axis | None) -> None:
        if a is None or b is None:
            return
        self._mention(a, b)
        if self.sizes[a] != self.sizes[b]:
            raise AssertionError(f"axes of different size tied: {a} {self.sizes[a]}, {b} {self.sizes[b]}")
        self.graph.add_edge(a, b)

    def pin(self, node: fx.Node, dims: Sequence[int] | None, reason: str) -> None:
        """Keep every index of these dims (None: all dims) of a value."""
        for dim in range(len(shape_of(node))) if dims is None else dims:
            found = self.axis(node, dim)
            if found is not None:
                self.pin_axis(found, reason)

    def pin_axis(self, found: Axis, reason: str) -> None:
        self._mention(found)
        self.pins.setdefault(found, reason)
        self.fixed.setdefault(found, reason)

    def sums_over(self, node: fx.Node, source: fx.Node, dims: Iterable[int], reason: str) -> None:
        """Keep every index of these dims of ``source``, of which ``node`` computes one number."""
        for dim in dims:
            found = self.axis(source, dim)
            if found is not None:
                self._mention(found)
                self.pins.setdefault(found, reason)
                self.sums.append(Sum(node, source, found.dim))

    def multiple(self, found: Axis | None, number: int) -> None:
        """The axis keeps a count that ``number`` divides, or all. No relation: say one as well."""
        if found is not None:
            self.multiples[found] = math.lcm(self.multiples.get(found, 1), number)

    def grid(self, flat: Axis, parts: Sequence[Axis]) -> None:
        self._mention(flat, *parts)
        if len(parts) == 1:
            self.same(flat, parts[0])
        else:
            self.grids.append(Grid(flat, tuple(parts), tuple(self.sizes[p] for p in parts)))

    def part(self, whole: Axis | None, part: Axis | None, index: torch.Tensor) -> None:
        if whole is not None:
            self._mention(whole, part)
            self.parts.append(Part(whole, part, index))

    def repeat(self, repeat: Repeat) -> None:
        self._mention(repeat.whole, repeat.part, repeat.copies)
        self.repeats.append(repeat)

    def _cover(self, cover: Cover) -> None:
        self._mention(cover.table, cover.user)
        self.covers.append(cover)

    def broadcast(self, node: fx.Node, operands: Sequence[fx.Node]) -> None:
        """Tie a pointwise node's axes to its operands', aligned at the right; a table that others read only covers."""
        rank = len(shape_of(node))
        all_tables = all(o in self.tables for o in operands)
        for operand in operands:
            offset = rank - len(shape_of(operand))
            for dim in range(len(shape_of(operand))):
                mine, theirs = self.axis(node, dim + offset), self.axis(operand, dim)
                if mine is None or theirs is None:
                    continue
                if operand in self.tables and not all_tables and not _read_once(operand):
                    self._cover(Cover(theirs, mine, node, operand, dim))
                else:
                    self.same(mine, theirs)

    def cover(self, node: fx.Node, operand: fx.Node, dims: Sequence[int]) -> None:
        """The operand's axes, aligned with the node's at the right, keep at least what the node keeps."""
        for dim in dims:
            theirs, mine = self.axis(operand, dim), self.axis(node, dim)
            if theirs is None or mine is None:
                continue
            if operand in self.tables:
                self._cover(Cover(theirs, mine, node, operand, dim % len(shape_of(operand))))
            else:
                self.same(theirs, mine)

    def reshape(self, node: fx.Node, source: fx.Node) -> None:
        """Tie the axes of a view to its source's, group by group."""
        in_shape, out_shape = shape_of(source), shape_of(node)
        for group in reshape_groups(in_shape, out_shape):
            sizes = [in_shape[d] for d in group.inputs] + [out_shape[d] for d in group.outputs]
            if not all(is_static(s) for s in sizes):
                self.pin(source, group.inputs, "a view mixes it with a data dimension")
                self.pin(node, group.outputs, "a view mixes it with a data dimension")
                continue
            ins = [a for d in group.inputs if (a := self.axis(source, d)) is not None]
            outs = [a for d in group.outputs if (a := self.axis(node, d)) is not None]
            repeat = repeat_of_expanded(node, source, ins, outs)
            if repeat is not None:
                self._mention(*ins)  # the heads of the expanded value, which are those of its source
                self.repeat(repeat)
            elif len(outs) == 1:
                self.grid(outs[0], ins)
            elif len(ins) == 1:
                self.grid(ins[0], outs)
            else:
                flat = self.virtual(torch.Size(self.sizes[a] for a in ins).numel())
                self.grid(flat, ins)
                self.grid(flat, outs)


def _read_once(operand: fx.Node) -> bool:
    """A parameter, or a slice of one, that is read here only: a bias, which can shrink with what it is added to."""
    while not is_parameter(operand):
        if operand.target is not aten.slice.Tensor or len(operand.users) != 1:
            return False
        operand = first_argument(operand)
    return len(operand.users) == 1 or all(user.target is aten.slice.Tensor for user in operand.users)


def repeat_of_expanded(node: fx.Node, source: fx.Node, ins: Sequence[Axis], outs: Sequence[Axis]) -> Repeat | None:
    """reshape(expand(x (.., K, 1, ..), (.., K, G, ..)), (.., K * G, ..)) repeats the K heads of x, G times each."""
    if source.target is not aten.expand.default or len(ins) != 2 or len(outs) != 1 or len(source.users) != 1:
        return None
    heads, copies = ins
    origin = first_argument(source)
    shape, wide = shape_of(origin), shape_of(source)
    if copies.dim != heads.dim + 1 or len(shape) != len(wide):
        return None
    if shape[heads.dim] != wide[heads.dim] or shape[copies.dim] != 1:
        return None
    whole = axis(origin, heads.dim)
    return None if whole is None else Repeat(whole, outs[0], wide[copies.dim], node, origin, heads.dim, copies)
