"""One head of fused projections as a slice of the linear's output:

    select(permute(reshape(y, [B, N, 3, H, D])), i)  ->  permute(reshape(slice(y, -1, i·H·D, (i + 1)·H·D)))

for a select of the outermost dim that a reshape made of one dim, through permutes and (un)squeezes on the way. As a
view into (3, H, D), query, key and value would have to keep the same heads and the same dims; as slices they need not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from passes.ir.metadata import call
from passes.ir.sizes import is_static, reshape_groups, shape_of, tensor_of
from passes.ops.views import permutation

aten = torch.ops.aten

_PERMUTES = frozenset({aten.permute.default, aten.transpose.int, aten.t.default})
_COPIES = frozenset({aten.clone.default, aten.contiguous.default})


def raise_selects(graph: fx.Graph) -> None:
    """Rewrite in place; views nobody reads any more disappear."""
    before = list(graph.nodes)
    for node in before:
        if node.op == "call_function" and node.target is aten.select.int and _reaches_reshape(*_arguments(node)):
            with graph.inserting_before(node):
                new = _raise(graph, *_arguments(node))
            node.replace_all_uses_with(new)
            graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        views = (
            *_PERMUTES,
            *_COPIES,
            aten.reshape.default,
            aten.unflatten.int,
            aten.unsqueeze.default,
            aten.squeeze.dim,
        )
        if node.op == "call_function" and not node.users and node.target in views:
            graph.erase_node(node)


def _arguments(node: fx.Node) -> tuple[fx.Node, int, Any]:
    source, dim, index = node.args[:3]
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    return source, dim % len(shape_of(source)), index


def _step(node: fx.Node, dim: int) -> tuple[fx.Node, int] | None:
    """The source of a view that only moves dims, and where ``dim`` is in it."""
    source: Any = node.args[0] if node.op == "call_function" and node.args else None
    if not isinstance(source, fx.Node) or tensor_of(source) is None:
        return None
    rank = len(shape_of(node))
    if node.target in _PERMUTES:
        return source, permutation(node)[dim]
    if node.target in _COPIES:
        return source, dim
    if node.target is aten.unsqueeze.default:
        new: Any = node.args[1]
        return None if dim == new % rank else (source, dim - (dim > new % rank))
    if node.target is aten.squeeze.dim:
        gone: Any = node.args[1]
        gone %= len(shape_of(source))
        return (source, dim + (dim >= gone)) if len(shape_of(source)) == rank + 1 else (source, dim)
    return None


def _made_of(node: fx.Node, dim: int) -> tuple[int, int] | None:
    """(dim of the source, inner size) if ``node`` views one source dim as (dim, inner...)."""
    source: Any = node.args[0] if node.args else None
    if node.target not in (aten.reshape.default, aten.unflatten.int) or not isinstance(source, fx.Node):
        return None
    out_shape = shape_of(node)
    for group in reshape_groups(shape_of(source), out_shape):
        if dim in group.outputs:
            fits = len(group.inputs) == 1 and len(group.outputs) > 1 and group.outputs[0] == dim
            if fits and all(is_static(out_shape[d]) for d in group.outputs):
                return group.inputs[0], math.prod(out_shape[d] for d in group.outputs[1:])
    return None


def _reaches_reshape(node: fx.Node, dim: int, index: Any) -> bool:
    size = shape_of(node)[dim]
    if not isinstance(index, int) or not is_static(size) or size == 1:
        return False
    while _made_of(node, dim) is None:
        step = _step(node, dim)
        if step is None:
            return False
        node, dim = step
    return True


def _raise(graph: fx.Graph, node: fx.Node, dim: int, index: int) -> fx.Node:
    """select(node, dim, index), written with the selection as early as it goes."""
    made = _made_of(node, dim)
    if made is not None:
        return _slice_and_view(graph, node, dim, index % shape_of(node)[dim], *made)
    step = _step(node, dim)
    assert step is not None
    inner = _raise(graph, *step, index)
    if node.target in _PERMUTES:
        order = [d - (d > step[1]) for d in permutation(node) if d != step[1]]
        return call(graph, aten.permute.default, inner, order)
    if node.target in _COPIES:
        return inner
    moved: Any = node.args[1]
    if node.target is aten.unsqueeze.default:
        moved %= len(shape_of(node))
        return call(graph, aten.unsqueeze.default, inner, moved - (dim < moved))
    moved %= len(shape_of(node)) + 1
    return call(graph, aten.squeeze.dim, inner, moved - (step[1] < moved))


def _slice_and_view(graph: fx.Graph, node: fx.Node, dim: int, index: int, source_dim: int, inner: int) -> fx.Node:
    source: Any = node.args[0]
    piece = call(graph, aten.slice.Tensor, source, source_dim, index * inner, (index + 1) * inner)
    shape = shape_of(node)
    sizes: Any
    if node.target is aten.unflatten.int:
        outer = shape_of(source)
        known = [_size(graph, source, d, s) for d, s in enumerate(outer)]
        inside = list(shape[dim + 1 : dim + len(shape) - len(outer) + 1])
        sizes = [*known[:source_dim], *inside, *known[source_dim + 1 :]]
    else:
        given: Any = node.args[1]
        sizes = [shape[d] if is_static(shape[d]) else s for d, s in enumerate(given)]
        sizes = [*sizes[:dim], *sizes[dim + 1 :]]
    if len(sizes) == len(shape_of(piece)) and sizes[source_dim] == inner:
        return piece  # nothing left to view
    return call(graph, aten.reshape.default, piece, sizes)


def _size(graph: fx.Graph, node: fx.Node, dim: int, size: Any) -> Any:
    return size if is_static(size) else call(graph, aten.sym_size.int, node, dim)
