"""Lookups: rows of a table read at data-dependent positions (embedding, index_select, gather, index), and creation.

A looked-up dim becomes data: a channel is constant iff all rows agree, and all rows are read when any result is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.facts import Fact, any_over, collapse_fact, fact_shape, make_fact, nothing_constant
from passes.ops.rule import Live, Rule

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties


# ----------------------------------------------------------------------------------------- embedding(table, index)


def _embedding_constant(node: fx.Node, constants: Constants) -> Fact:
    """A column is constant iff all its rows are equal."""
    table = constants.fact(tensor_inputs(node)[0])
    rows = collapse_fact(table, [0])
    return make_fact(rows.const[0].expand(fact_shape(node)), rows.value[0].expand(fact_shape(node)))


def _embedding_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    table = tensor_inputs(node)[0]
    columns = any_over(live_out, range(live_out.dim() - 1)).reshape(1, -1)
    return {table: columns.expand(fact_shape(table))}


def _embedding_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    table, index = tensor_inputs(node)[0], tensor_inputs(node)[-1]
    ties.pin(table, [0], "rows looked up by index")
    ties.pin(index, None, "an index")
    ties.pin(node, range(len(shape_of(node)) - 1), "an index")
    ties.same(ties.axis(table, 1), ties.axis(node, len(shape_of(node)) - 1))


EMBEDDING = Rule("embedding", _embedding_constant, _embedding_live, _embedding_ties, tabular=True)


# ----------------------------------------------------------------------------- index_select / gather along one dim


def _lookup_dim(node: fx.Node) -> int:
    dim = node.args[1]
    assert isinstance(dim, int)
    return dim % len(shape_of(tensor_inputs(node)[0]))


def _select_constant(node: fx.Node, constants: Constants) -> Fact:
    fact = collapse_fact(constants.fact(tensor_inputs(node)[0]), [_lookup_dim(node)])
    return make_fact(fact.const.expand(fact_shape(node)), fact.value.expand(fact_shape(node)))


def _select_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    source, *indices = tensor_inputs(node)
    reads = any_over(live_out, [_lookup_dim(node)]).expand(fact_shape(source))
    everything = torch.ones((), dtype=torch.bool)
    return {source: reads} | {i: everything.expand(fact_shape(i)) for i in indices}


def _select_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source, *indices = tensor_inputs(node)
    dim = _lookup_dim(node)
    ties.pin(source, [dim], "looked up by index")
    ties.pin(node, [dim], "looked up by index")
    for index in indices:
        ties.pin(index, None, "an index")
    for d in range(len(shape_of(source))):
        if d != dim:
            ties.same(ties.axis(source, d), ties.axis(node, d))


INDEX_SELECT = Rule("index_select", _select_constant, _select_live, _select_ties, tabular=True)


# ------------------------------------------------------------------------------------------- gather(x, dim, index)


def _gather_index(node: fx.Node) -> fx.Node:
    index = node.args[2]
    assert isinstance(index, fx.Node)
    return index


def _gather_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    source, index, dim = tensor_inputs(node)[0], _gather_index(node), _lookup_dim(node)
    reads = any_over(live_out, [dim, *_cropped(node)])
    return {source: reads.expand(fact_shape(source)), index: live_out}  # an index is read where its result is


def _cropped(node: fx.Node) -> list[int]:
    """Other dims along which the index is smaller than the source."""
    source, out = shape_of(tensor_inputs(node)[0]), shape_of(node)
    return [d for d, size in enumerate(out) if d != _lookup_dim(node) and (source[d] != size) is not False]


def _gather_constant(node: fx.Node, constants: Constants) -> Fact:
    fact = collapse_fact(constants.fact(tensor_inputs(node)[0]), [_lookup_dim(node), *_cropped(node)])
    return make_fact(fact.const.expand(fact_shape(node)), fact.value.expand(fact_shape(node)))


def _gather_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source, index = tensor_inputs(node)[0], _gather_index(node)
    mixed = [_lookup_dim(node), *_cropped(node)]
    for value in (source, index, node):
        ties.pin(value, mixed, "gathered by a computed index")
    origin = index.args[0] if index.target is torch.ops.aten.expand.default else None
    for d in range(len(shape_of(node))):
        if d in mixed:
            continue
        ties.same(ties.axis(source, d), ties.axis(node, d))
        if isinstance(origin, fx.Node) and shape_of(origin)[d - len(shape_of(node))] == 1:
            ties.same(ties.axis(index, d), ties.axis(node, d))  # expanded to this size: it expands to less
        else:
            ties.cover(node, index, [d])


GATHER = Rule("gather", _gather_constant, _gather_live, _gather_ties)


# ------------------------------------------------------------------------------------------------------ the default


def _unknown_constant(node: fx.Node, constants: Constants) -> Fact:
    fake = tensor_of(node)
    assert fake is not None
    return nothing_constant(fact_shape(node), fake.dtype)


def _everything_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    if not bool(live_out.any()):
        return {}
    return {n: torch.ones((), dtype=torch.bool).expand(fact_shape(n)) for n in tensor_inputs(node)}


def _all_pinned(reason: str) -> Rule:
    def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
        for value in (node, *tensor_inputs(node)):
            ties.pin(value, None, reason)

    return Rule(reason, _unknown_constant, _everything_live, ties)


_ANY_INDEX = _all_pinned("gathered by a computed index")
UNKNOWN = _all_pinned("used by an operator without a transfer rule")


# ---------------------------------------------------------------------------------------------- x[index], aten.index


def _first_dim_only(node: fx.Node) -> fx.Node | None:
    """The index of ``x[index]`` where only the first dim is indexed, by integers; None otherwise."""
    indices = node.args[1]
    assert isinstance(indices, list | tuple)
    index = indices[0] if len(indices) == 1 else None
    fake = None if not isinstance(index, fx.Node) else tensor_of(index)
    return index if isinstance(index, fx.Node) and fake is not None and fake.dtype is not torch.bool else None


def _index_constant(node: fx.Node, constants: Constants) -> Fact:
    if _first_dim_only(node) is None:
        return _unknown_constant(node, constants)
    rows = collapse_fact(constants.fact(tensor_inputs(node)[0]), [0])
    return make_fact(rows.const[0].expand(fact_shape(node)), rows.value[0].expand(fact_shape(node)))


def _index_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    index, source = _first_dim_only(node), tensor_inputs(node)[0]
    if index is None:
        return _everything_live(node, live_out, constants)
    looked_up = len(shape_of(index))
    rest = any_over(live_out, range(looked_up)).reshape(1, *live_out.shape[looked_up:])
    everything = torch.ones((), dtype=torch.bool).expand(fact_shape(index))
    return {index: everything, source: rest.expand(fact_shape(source))}


def _index_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    index, source = _first_dim_only(node), tensor_inputs(node)[0]
    if index is None:
        _ANY_INDEX.ties(node, ties, constants)
        return
    looked_up = len(shape_of(index))
    ties.pin(source, [0], "rows looked up by index")
    ties.pin(index, None, "an index")
    ties.pin(node, range(looked_up), "an index")
    for d in range(1, len(shape_of(source))):
        ties.same(ties.axis(source, d), ties.axis(node, d + looked_up - 1))


INDEX = Rule("index", _index_constant, _index_live, _index_ties, tabular=True)


def _created_constant(node: fx.Node, constants: Constants) -> Fact:
    """zeros, ones, full with literal numbers are constant; arange and the like are not."""
    fake, shape = tensor_of(node), fact_shape(node)
    assert fake is not None
    number = fill_value(node)
    if number is None:
        return nothing_constant(shape, fake.dtype)
    return make_fact(torch.ones(shape, dtype=torch.bool), torch.full(shape, number, dtype=fake.dtype))


def fill_value(node: fx.Node) -> float | None:
    """The number a creation operator fills its result with; None if it is not one literal."""
    aten = torch.ops.aten
    target = node.target
    if target in (aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default):
        return 0.0
    if target in (aten.ones.default, aten.new_ones.default, aten.ones_like.default):
        return 1.0
    position = {
        aten.full.default: 1,
        aten.new_full.default: 2,
        aten.full_like.default: 1,
        aten.scalar_tensor.default: 0,
    }
    number = node.args[position[target]] if target in position else None
    return float(number) if isinstance(number, int | float) else None


def _created_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    return {}


def _created_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    """The literal sizes of the result are rewritten; arange counts and is pinned."""
    if fill_value(node) is None:
        ties.pin(node, None, "created by counting")


CREATION = Rule("creation", _created_constant, _created_live, _created_ties, tabular=True)


def _like_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    ties.broadcast(node, tensor_inputs(node))


CREATION_LIKE = Rule("creation like another value", _created_constant, _created_live, _like_ties, tabular=True)
