"""Which feature of which weight is which dim of which head of an attention.

Every feature of a linear gets a number, and the numbers go through the graph as values do: views move them, sums and
products with constants leave them, and where two features meet in one number, it has both (rotary positions turn dim d
into x_d · cos − x_{d + D/2} · sin). What arrives at the operands of the core says where their heads come from, whatever
the layout: side by side, head by head, keys and values shared by groups. Behind the core the same is done with the
numbers of its own heads and dims, as far as the linear that reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from passes.ir.sizes import carrying_inputs, shape_of, tensor_of
from passes.ops.facts import Fact, fact_shape
from passes.ops.linear_form import linear_form
from passes.ops.rule import Kind
from passes.ops.table import kind_of, rule_for
from passes.structure.attention_cores import AttentionCore
from passes.structure.blocks import Block
from passes.structure.reach import Reach, reach
from passes.structure.role import Part
from passes.structure.roles import Roles
from passes.structure.weight_uses import WeightUse, weight_uses

_NOTHING, _UNKNOWN = -1, -2  # an entry of no feature; one whose features are not known
_MIXES = frozenset({Kind.NORM, Kind.REDUCTION})
_LOOKED_THROUGH = _MIXES | {Kind.VIEW, Kind.LOOKUP, Kind.SUM, Kind.PRODUCT, Kind.POINTWISE}
_OPERANDS = (Part.QUERY, Part.KEY, Part.VALUE)


@dataclass(frozen=True, eq=False)
class HeadPlaces:
    """The features of one weight that one operand of an attention, or its output, has.

    ``index``: int64 (sources, query heads, dims) into the weight's output features, or into the input features of the
    linear that reads the heads; -1 for none. Several sources where dims rotate into each other. Query heads that share
    a key and value head name the same features of it.
    ``mixed``: a normalisation on the way computes every dim from others.
    """

    weight: str
    part: Part
    index: Tensor
    mixed: bool = False


def head_places(roles: Roles) -> Mapping[str, tuple[HeadPlaces, ...]]:
    """{attention: its places}; without those whose heads cannot be followed."""
    graph_module = roles.graph_module
    uses = weight_uses(graph_module)
    sources = reach(graph_module.graph, uses, through_norms=True)
    found = {}
    with torch.device("cpu"):  # numbers are computed, even while models are made on meta
        for block in roles.blocks:
            if block.core is not None and (places := _places(block, block.core, uses, sources)) is not None:
                found[block.name] = places
    return found


@dataclass(frozen=True, eq=False)
class _Features:
    """``numbers``: of each entry of a value, in the shape of facts about it; none for constants. ``mixed`` as above."""

    numbers: tuple[Tensor, ...] = ()
    mixed: bool = False


class _Walk:
    """The features of values, from those of ``known`` values on. ``rest``: what other linears give (None: unknown)."""

    def __init__(
        self, sources: Mapping[fx.Node, Reach], known: Mapping[fx.Node, Tensor], rest: _Features | None = None
    ) -> None:
        self._sources = sources
        self._rest = rest
        self._found: dict[fx.Node, _Features | None] = {n: _Features((t,)) for n, t in known.items()}

    def of(self, node: fx.Node) -> _Features | None:
        """None where the graph does not say."""
        if node not in self._found:
            self._found[node] = self._compute(node)
        return self._found[node]

    def _compute(self, node: fx.Node) -> _Features | None:
        kind, inputs = kind_of(node), carrying_inputs(node)
        if self._sources[node].constant:
            return _Features()
        if kind is Kind.NORM or (kind is Kind.LOOKUP and len(inputs) > 1):
            inputs = inputs[:1]
        if node.op != "call_function" or tensor_of(node) is None or kind not in _LOOKED_THROUGH:
            return self._rest
        given = [self.of(n) for n in inputs]
        known = [f for f in given if f is not None]
        if len(known) < len(given):
            return None
        mixed = kind in _MIXES or any(f.mixed for f in known)
        if kind is Kind.REDUCTION:  # a factor of a normalisation
            return _Features((), mixed)
        if kind is Kind.VIEW:
            return _Features(_moved(node, dict(zip(inputs, known, strict=True))), mixed)
        shape = fact_shape(node)
        numbers = [t.expand(shape) for f in known for t in f.numbers]
        return _Features(_distinct(numbers), mixed)


def _moved(node: fx.Node, given: Mapping[fx.Node, _Features]) -> tuple[Tensor, ...]:
    """What a view makes of the numbers: as it moves constants, of which they are some."""
    found = []
    for source in range(max((len(f.numbers) for f in given.values()), default=0)):
        fact = rule_for(node).constant(node, _Numbers(given, source))
        found.append(torch.where(fact.const, fact.value.long(), _UNKNOWN))
    return _distinct(found)


class _Numbers:
    """Answers rules of views: every value is constant, and its numbers are those of its features."""

    def __init__(self, given: Mapping[fx.Node, _Features], source: int) -> None:
        self._given, self._source = given, source

    def fact(self, node: fx.Node) -> Fact:
        features = self._given.get(node)
        numbers = torch.full(fact_shape(node), _NOTHING)
        if features is not None and features.numbers:
            numbers = features.numbers[min(self._source, len(features.numbers) - 1)]
        return Fact(torch.ones((), dtype=torch.bool).expand(numbers.shape), numbers.double())

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"rules of views ask for no {name}")


def _distinct(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    for tensor in tensors:
        if not any(torch.equal(tensor, other) for other in found):
            found.append(tensor)
    return tuple(found)


def _places(
    block: Block, core: AttentionCore, uses: Mapping[fx.Node, WeightUse], sources: Mapping[fx.Node, Reach]
) -> tuple[HeadPlaces, ...] | None:
    numbers, start, total = dict[fx.Node, Tensor](), dict[str, int](), 0
    for node in (n for part in _OPERANDS for n in block.parts[part]):
        form, weight = linear_form(node), uses[node].weight
        if form is None:  # a weight read through more than a window
            return None
        rows = shape_of(form.weight)[form.out_dim]
        if weight not in start:
            start[weight], total = total, total + rows
        numbers[node] = (form.seen(torch.arange(rows)) + start[weight]).expand(fact_shape(node))
    walk = _Walk(sources, numbers)
    found: list[HeadPlaces] = []
    heads, query = 0, None
    operands = zip(_OPERANDS, (core.queries, core.keys, core.values), strict=True)
    for (part, operand), dim in zip([(p, n) for p, own in operands for n in own], core.inner[:-1], strict=True):
        features = walk.of(operand)
        if features is None or dim is None or not features.numbers:
            return None
        table = torch.stack([_by_head(t, dim) for t in features.numbers])  # (sources, heads, dims)
        if bool((table == _UNKNOWN).any()):
            return None
        if query is None:
            query, heads = features.numbers[0], table.shape[1]
        if heads % table.shape[1]:
            return None
        table = table.repeat_interleave(heads // table.shape[1], 1)
        ends = [*list(start.values())[1:], total]
        for (weight, first), end in zip(start.items(), ends, strict=True):
            inside = (table >= first) & (table < end)
            if bool(inside.any()):
                found.append(HeadPlaces(weight, part, torch.where(inside, table - first, _NOTHING), features.mixed))
    assert query is not None
    output = _output(block, core, query, uses, sources)
    return None if output is None else (*found, output)


def _by_head(numbers: Tensor, dim: int) -> Tensor:
    """(heads, dims): without the dims along which nothing changes, which are data."""
    numbers = numbers.movedim(dim, -1)
    for d in range(numbers.dim() - 1):
        first = numbers.narrow(d, 0, 1)
        if bool((numbers == first).all()):
            numbers = first
    return numbers.reshape(-1, numbers.shape[-1])


def _output(
    block: Block,
    core: AttentionCore,
    query: Tensor,
    uses: Mapping[fx.Node, WeightUse],
    sources: Mapping[fx.Node, Reach],
) -> HeadPlaces | None:
    """The columns of the linear that reads the heads: a core's result has them where its query has them."""
    shape, inner, place = fact_shape(core.output), core.inner[-1], core.inner[0]
    weights = {uses[n].weight for n in block.parts[Part.OUTPUT]}
    if inner is None or place is None or len(shape) != query.dim() or len(weights) != 1:
        return None
    others = [d for d in range(len(shape)) if d != place % len(shape)]
    own = [d for d in others if bool((query != query.narrow(d, 0, 1)).any())]
    if any(shape[d] != query.shape[d] for d in own):
        return None
    order = torch.arange(torch.Size([shape[d] for d in own]).numel() * shape[inner])
    layout = order.view([shape[d] if d in own else 1 for d in range(len(shape)) if d != inner % len(shape)] + [-1])
    numbers = layout.movedim(-1, inner).expand(shape)
    reader = uses[next(n for n in uses if n in block.parts[Part.OUTPUT])]
    features = _Walk(sources, {core.output: numbers}, _Features()).of(reader.input)
    if features is None or len(features.numbers) != 1:
        return None
    columns = features.numbers[0].reshape(-1, features.numbers[0].shape[-1])
    column = columns[0]
    if bool((columns != column).any()) or not torch.equal(column.sort().values, order):
        return None
    return HeadPlaces(reader.weight, Part.OUTPUT, column.argsort().view(1, -1, shape[inner]), features.mixed)
