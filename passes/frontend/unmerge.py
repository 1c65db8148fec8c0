"""Heads apart from the batch: (B·H, L, D)  ->  (B, H, L, D), for the analyses' sake.

    reshape into B·H                 ->  reshape into B, H
    reshape of the merged value      ->  reshape of the split one
    bmm, baddbmm                     ->  matmul over both
    pointwise, softmax, permute,     ->  the same with one dim more
    gather

A dim that is batch times heads is data, and heads inside it could never go. nn.MultiheadAttention and DeBERTa write
their attention this way. What the graph computes does not change; a merged value that another operator reads stays.
Swin merges its batch with windows: there only the mask is, and the scores stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.ir.metadata import call
from passes.ir.sizes import is_static, reshape_groups, shape_of, tensor_inputs, tensor_of
from passes.ops.pointwise import CAST
from passes.ops.reductions import SOFTMAX
from passes.ops.rule import Kind
from passes.ops.table import kind_of, rule_for

aten = torch.ops.aten

_ENTRY_BY_ENTRY = frozenset({Kind.POINTWISE, Kind.SUM, Kind.PRODUCT})


@dataclass(frozen=True)
class _Split:
    """``node`` is a merged value whose dim ``dim``, of size ``batch`` · ``heads``, is two dims."""

    node: fx.Node
    dim: int
    batch: Any  # a node or an int
    heads: int


_Splits = dict[fx.Node, _Split]


def unmerge(graph: fx.Graph) -> None:
    """Rewrite in place; merged values nobody reads any more disappear."""
    splits: _Splits = {}
    before = list(graph.nodes)
    for node in before:
        if node.op == "call_function" and tensor_of(node) is not None:
            with graph.inserting_after(node):
                found = _split(_Builder(graph, node), node, splits)
            if found is not None:
                splits[node] = found
    for node in reversed(before):
        if node.op == "call_function" and tensor_of(node) is not None and not node.users and node in splits:
            graph.erase_node(node)


class _Builder:
    """Inserts nodes with metadata, each behind the one before."""

    def __init__(self, graph: fx.Graph, position: fx.Node) -> None:
        self.graph, self.position = graph, position

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        with self.graph.inserting_after(self.position):
            node = call(self.graph, target, *args, **kwargs)
        self.position = node
        return node


def _split(build: _Builder, node: fx.Node, splits: _Splits) -> _Split | None:
    """The split form of a node, if it has one; a reshape back to plain dims is redirected in place."""
    if node.target is aten.reshape.default:
        return _split_reshape(build, node, splits)
    if node.target is aten.repeat.default:
        return _split_repeat(build, node)
    merged = [n for n in tensor_inputs(node) if n in splits]
    if not merged:
        return None
    if node.target in (aten.permute.default, aten.transpose.int):
        return _split_permute(build, node, splits[merged[0]])
    if node.target in (aten.bmm.default, aten.baddbmm.default):
        return _split_product(build, node, splits, splits[merged[0]])
    if rule_for(node) is SOFTMAX or node.target is aten.gather.default:
        return _split_along(build, node, splits, splits[merged[0]])
    if kind_of(node) in _ENTRY_BY_ENTRY or rule_for(node) is CAST:
        return _split_pointwise(build, node, splits, splits[merged[0]])
    return None


def _split_reshape(build: _Builder, node: fx.Node, splits: _Splits) -> _Split | None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if source in splits:
        source = splits[source].node
        node.args = (source, *node.args[1:])
    sizes: Any = node.args[1]
    in_shape, out_shape = shape_of(source), shape_of(node)
    for group in reshape_groups(in_shape, out_shape):
        if len(group.inputs) < 2 or is_static(in_shape[group.inputs[0]]) or is_static(out_shape[group.outputs[0]]):
            continue
        static = all(is_static(in_shape[d]) for d in group.inputs[1:])
        heads = out_shape[group.outputs[0]].node.expr / in_shape[group.inputs[0]].node.expr
        if (
            not static
            or not heads.is_Integer
            or heads <= 1
            or not all(is_static(out_shape[d]) for d in group.outputs[1:])
        ):
            continue
        dim = group.outputs[0]
        batch = build.call(aten.sym_size.int, source, group.inputs[0])
        new_sizes = [*sizes[:dim], batch, int(heads), *sizes[dim + 1 :]]
        return _Split(build.call(aten.reshape.default, source, new_sizes), dim, batch, int(heads))
    return None


def _split_repeat(build: _Builder, node: fx.Node) -> _Split | None:
    """repeat(x (H, ...), [B, 1, ...]) -> expand(x, [B, H, ...])."""
    source, repeats = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(repeats, list | tuple)
    shape = shape_of(source)
    if len(repeats) != len(shape) or any(r != 1 for r in repeats[1:]) or not is_static(shape[0]) or shape[0] == 1:
        return None
    if not isinstance(repeats[0], fx.Node):
        return None
    wide = build.call(aten.unsqueeze.default, source, 0)
    expanded = build.call(aten.expand.default, wide, [repeats[0], *[-1] * len(shape)])
    return _Split(expanded, 0, repeats[0], shape[0])


def _split_permute(build: _Builder, node: fx.Node, split: _Split) -> _Split:
    rank = len(shape_of(node))
    order = list(range(rank))
    given: Any = node.args[1:]
    if node.target is aten.transpose.int:
        a, b = (d % rank for d in given)
        order[a], order[b] = order[b], order[a]
    else:
        order = [d % rank for d in given[0]]
    wider: list[int] = []
    for d in order:
        wider += [d, d + 1] if d == split.dim else [d + (d > split.dim)]
    return _Split(build.call(aten.permute.default, split.node, wider), order.index(split.dim), split.batch, split.heads)


def _split_product(build: _Builder, node: fx.Node, splits: _Splits, like: _Split) -> _Split | None:
    *added, a, b = node.args[:3]
    if like.dim != 0 or len(node.args) > 3:
        return None
    operands = [_as_split(build, n, 0, like, splits) for n in (a, b) if isinstance(n, fx.Node)]
    if None in operands:
        return None
    product = build.call(aten.matmul.default, *operands)
    if added:
        alpha, beta = node.kwargs.get("alpha", 1), node.kwargs.get("beta", 1)
        if alpha != 1:
            product = build.call(aten.mul.Tensor, product, alpha)
        bias = added[0]
        assert isinstance(bias, fx.Node)
        if len(shape_of(bias)) == 3:
            split_bias = _as_split(build, bias, 0, like, splits)
            if split_bias is None:
                return None
            bias = split_bias
        if beta != 1:
            bias = build.call(aten.mul.Tensor, bias, beta)
        product = build.call(aten.add.Tensor, product, bias)
    return _Split(product, 0, like.batch, like.heads)


def _split_along(build: _Builder, node: fx.Node, splits: _Splits, like: _Split) -> _Split | None:
    """softmax(x, dim, ...) and gather(x, dim, index) along another dim than the merged one."""
    source, dim, *rest = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    dim %= len(shape_of(source))
    if source not in splits or dim == like.dim:
        return None
    rest = [_as_split(build, a, like.dim, like, splits) if isinstance(a, fx.Node) else a for a in rest]
    if node.target is aten.gather.default and rest[0] is None:
        return None
    new = build.call(node.target, like.node, dim + (dim > like.dim), *rest, **node.kwargs)
    return _Split(new, like.dim, like.batch, like.heads)


def _split_pointwise(build: _Builder, node: fx.Node, splits: _Splits, like: _Split) -> _Split | None:
    rank = len(shape_of(node))
    position = next(like.dim + rank - len(shape_of(n)) for n in tensor_inputs(node) if splits.get(n) is like)
    arguments: list[Any] = []
    for argument in node.args:
        if isinstance(argument, fx.Node) and tensor_of(argument) is not None:
            dim = position - (rank - len(shape_of(argument)))
            if argument in splits and splits[argument].dim != dim:
                return None
            arguments.append(argument if dim < 0 else _as_split(build, argument, dim, like, splits))
            if arguments[-1] is None:
                return None
        else:
            arguments.append(argument)
    if any(isinstance(a, fx.Node) and tensor_of(a) is not None for a in node.kwargs.values()):
        return None
    return _Split(build.call(node.target, *arguments, **node.kwargs), position, like.batch, like.heads)


def _as_split(build: _Builder, node: fx.Node, dim: int, like: _Split, splits: _Splits) -> fx.Node | None:
    """An operand with its dim ``dim`` (batch·heads, or 1) as two dims; None if it is computed in merged form."""
    if node in splits and splits[node].dim == dim and splits[node].heads == like.heads:
        return splits[node].node
    shape = shape_of(node)
    if is_static(shape[dim]) and shape[dim] == 1:
        return build.call(aten.unsqueeze.default, node, dim)
    source: Any = node.args[0] if node.target is aten.expand.default else None
    if source is not None and len(shape_of(source)) == len(shape) and shape_of(source)[dim] == 1:
        sizes: Any = node.args[1]
        wide = build.call(aten.unsqueeze.default, source, dim)
        return build.call(aten.expand.default, wide, [*sizes[:dim], like.batch, like.heads, *sizes[dim + 1 :]])
    if node.op == "call_function":
        return None
    sizes = [s if is_static(s) else build.call(aten.sym_size.int, node, d) for d, s in enumerate(shape)]
    return build.call(aten.reshape.default, node, [*sizes[:dim], like.batch, like.heads, *sizes[dim + 1 :]])
