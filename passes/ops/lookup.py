"""Lookups: rows of a table read at data-dependent positions (embedding, index_select, gather, index).

A looked-up dim becomes data: a channel is constant iff all rows agree, and all rows are read when any result is.
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.arguments import argument, first_argument
from passes.ops.facts import Fact, any_over, collapse_fact, everything, fact_shape, make_fact
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.ties import Ties
from passes.ops.unknown import all_pinned, everything_live, unknown_constant

aten = torch.ops.aten


# ----------------------------------------------------------------------------------------- embedding(table, index)


def _embedding_constant(node: fx.Node, facts: Facts) -> Fact:
    """A column is constant iff all its rows are equal."""
    table = facts.fact(first_argument(node))
    rows = collapse_fact(table, [0])
    return make_fact(rows.const[0].expand(fact_shape(node)), rows.value[0].expand(fact_shape(node)))


def _embedding_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    table, index = argument(node, "weight"), argument(node, "indices")
    columns = any_over(live_out, range(live_out.dim() - 1)).reshape(1, -1)
    return {table: columns.expand(fact_shape(table)), index: everything(index)}


def _embedding_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    table, index = argument(node, "weight"), argument(node, "indices")
    ties.pin(table, [0], "rows looked up by index")
    ties.pin(index, None, "an index")
    ties.pin(node, range(len(shape_of(node)) - 1), "an index")
    ties.same(ties.axis(table, 1), ties.axis(node, len(shape_of(node)) - 1))


EMBEDDING = Rule("embedding", _embedding_constant, _embedding_live, _embedding_ties, tabular=True)


# ----------------------------------------------------------------------------- index_select / gather along one dim


def _lookup_dim(node: fx.Node) -> int:
    dim: int = argument(node, "dim")
    return dim % len(shape_of(first_argument(node)))


def _select_constant(node: fx.Node, facts: Facts) -> Fact:
    fact = collapse_fact(facts.fact(first_argument(node)), [_lookup_dim(node)])
    return make_fact(fact.const.expand(fact_shape(node)), fact.value.expand(fact_shape(node)))


def _select_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    source, *indices = tensor_inputs(node)
    reads = any_over(live_out, [_lookup_dim(node)]).expand(fact_shape(source))
    return {source: reads} | {i: everything(i) for i in indices}


def _select_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, *indices = tensor_inputs(node)
    dim = _lookup_dim(node)
    ties.pin(source, [dim], "looked up by index")
    ties.pin(node, [dim], "looked up by index")
    for index in indices:
        ties.pin(index, None, "an index")
    for d in range(len(shape_of(source))):
        if d != dim:
            ties.same(ties.axis(source, d), ties.axis(node, d))


INDEX_SELECT = Rule("index_select", _select_constant, _select_live, _select_ties, kind=Kind.LOOKUP, tabular=True)


# ------------------------------------------------------------------------------------------- gather(x, dim, index)


def _gather_index(node: fx.Node) -> fx.Node:
    index: fx.Node = argument(node, "index")
    return index


def _gather_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    source, index, dim = first_argument(node), _gather_index(node), _lookup_dim(node)
    reads = any_over(live_out, [dim, *_cropped(node)])
    return {source: reads.expand(fact_shape(source)), index: live_out}  # an index is read where its result is


def _cropped(node: fx.Node) -> list[int]:
    """Other dims along which the index is smaller than the source."""
    source, out = shape_of(first_argument(node)), shape_of(node)
    return [d for d, size in enumerate(out) if d != _lookup_dim(node) and (source[d] != size) is not False]


def _gather_constant(node: fx.Node, facts: Facts) -> Fact:
    fact = collapse_fact(facts.fact(first_argument(node)), [_lookup_dim(node), *_cropped(node)])
    return make_fact(fact.const.expand(fact_shape(node)), fact.value.expand(fact_shape(node)))


def _gather_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, index = first_argument(node), _gather_index(node)
    mixed = [_lookup_dim(node), *_cropped(node)]
    for value in (source, index, node):
        ties.pin(value, mixed, "gathered by a computed index")
    origin = index.args[0] if index.target is aten.expand.default else None
    for d in range(len(shape_of(node))):
        if d in mixed:
            continue
        ties.same(ties.axis(source, d), ties.axis(node, d))
        if isinstance(origin, fx.Node) and shape_of(origin)[d - len(shape_of(node))] == 1:
            ties.same(ties.axis(index, d), ties.axis(node, d))  # expanded to this size: it expands to less
        else:
            ties.cover(node, index, [d])


GATHER = Rule("gather", _gather_constant, _gather_live, _gather_ties)


# ---------------------------------------------------------------------------------------------- x[index], aten.index


_ANY_INDEX = all_pinned("gathered by a computed index")


def _first_dim_only(node: fx.Node) -> fx.Node | None:
    """The index of ``x[index]`` where only the first dim is indexed, by integers; None otherwise."""
    indices = argument(node, "indices")
    index = indices[0] if len(indices) == 1 else None
    fake = None if not isinstance(index, fx.Node) else tensor_of(index)
    return index if isinstance(index, fx.Node) and fake is not None and fake.dtype is not torch.bool else None


def _index_constant(node: fx.Node, facts: Facts) -> Fact:
    if _first_dim_only(node) is None:
        return unknown_constant(node, facts)
    rows = collapse_fact(facts.fact(first_argument(node)), [0])
    return make_fact(rows.const[0].expand(fact_shape(node)), rows.value[0].expand(fact_shape(node)))


def _index_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    index, source = _first_dim_only(node), first_argument(node)
    if index is None:
        return everything_live(node, live_out, facts)
    looked_up = len(shape_of(index))
    rest = any_over(live_out, range(looked_up)).reshape(1, *live_out.shape[looked_up:])
    return {index: everything(index), source: rest.expand(fact_shape(source))}


def _index_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    index, source = _first_dim_only(node), first_argument(node)
    if index is None:
        _ANY_INDEX.ties(node, ties, facts)
        return
    looked_up = len(shape_of(index))
    ties.pin(source, [0], "rows looked up by index")
    ties.pin(index, None, "an index")
    ties.pin(node, range(looked_up), "an index")
    for d in range(1, len(shape_of(source))):
        ties.same(ties.axis(source, d), ties.axis(node, d + looked_up - 1))


INDEX = Rule("index", _index_constant, _index_live, _index_ties, kind=Kind.LOOKUP, tabular=True)

RULES = {
    aten.embedding.default: EMBEDDING,
    aten.index_select.default: INDEX_SELECT,
    aten.gather.default: GATHER,
    aten.index.Tensor: INDEX,
}
