"""One form for things ATen says in several ways, so that analyses and rewrites need one rule.

multiply, concat, ...   ->  mul, cat, ... (ATen's other names)
split, chunk, unbind    ->  slice / select per piece (no operator has several results)
view, _unsafe_view      ->  reshape (whether memory is contiguous is no business of a graph rewrite)
stack                   ->  cat of unsqueezed pieces
native_layer_norm [0]   ->  layer_norm
reshape_as, view_as     ->  reshape
max, min over a dim [0] ->  amax, amin
rsub                    ->  add of the negative (torch.onnx fails on 1.0 - an integer mask)
squeeze                 ->  squeeze of the dims that have size 1 (another may come to it, and stays)
cat with empty pieces   ->  cat of the others (a vision model without register tokens)
einsum, outer           ->  matmul, mul, permute (see `einsum`)
linear with a computed  ->  linear, add (nn.MultiheadAttention with kdim splits its packed bias, not its weights)
bias
select of a view        ->  view of a slice (see `raise_selects`: fused projections)
batch · heads           ->  batch, heads (see `unmerge`)
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from passes.frontend.einsum import einsum_to_matmul, outer_to_product
from passes.frontend.explain import explained
from passes.frontend.selects import raise_selects
from passes.frontend.symbols import unify_symbols
from passes.frontend.unmerge import unmerge
from passes.ir.graph import eliminate_dead_code
from passes.ir.metadata import call
from passes.ir.sizes import is_static, shape_of
from passes.ops.arguments import argument, first_argument
from passes.ops.linear_form import linear_form

aten = torch.ops.aten

_SPLITS = frozenset(
    {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unsafe_split.Tensor, aten.split.sizes,
     aten.tensor_split.sections, aten.unsafe_chunk.default}
)  # fmt: skip
_ALIASES: Mapping[Any, Any] = {
    aten.multiply.Tensor: aten.mul.Tensor,
    aten.divide.Tensor: aten.div.Tensor,
    aten.true_divide.Tensor: aten.div.Tensor,
    aten.subtract.Tensor: aten.sub.Tensor,
    aten.negative.default: aten.neg.default,
    aten.clip.default: aten.clamp.default,
    aten.concat.default: aten.cat.default,
    aten.concatenate.default: aten.cat.default,
    aten.swapdims.default: aten.transpose.int,
    aten.swapaxes.default: aten.transpose.int,
}

_SQUEEZES = frozenset({aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims})
_VIEWS = frozenset({aten.view.default, aten._unsafe_view.default})

_FIRST_RESULT: Mapping[Any, Any] = {
    aten.native_layer_norm.default: aten.layer_norm.default,
    aten.max.dim: aten.amax.default,
    aten.min.dim: aten.amin.default,
}


def canonicalise(graph_module: fx.GraphModule) -> None:
    """Rewrite in place. Pieces of a split along a data dimension keep their operator (its sizes are symbolic)."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function":
            with explained("canonical form", node):
                _rewrite(graph, node)
    unify_symbols(graph_module)
    raise_selects(graph)
    unmerge(graph)
    eliminate_dead_code(graph_module)


def _rewrite(graph: fx.Graph, node: fx.Node) -> None:
    """One operator's canonical form."""
    node.target = _ALIASES.get(node.target, node.target)
    if node.target in (aten.reshape_as.default, aten.view_as.default):
        _reshape_as(graph, node)
    elif node.target in _VIEWS:
        node.target = aten.reshape.default
    elif node.target in _SQUEEZES:
        _squeeze_ones(node)
    elif node.target in _SPLITS or node.target is aten.unbind.int:
        _split_to_slices(graph, node)
    elif node.target is aten.stack.default:
        _stack_to_cat(graph, node)
    elif node.target is aten.cat.default:
        _drop_empty_pieces(node)
    elif node.target in _FIRST_RESULT:
        _one_result(graph, node, _FIRST_RESULT[node.target])
    elif node.target is aten.rsub.Scalar and len(node.args) == 2 and not node.kwargs:
        _rsub_to_add(graph, node)
    elif node.target is aten.einsum.default:
        einsum_to_matmul(graph, node)
    elif node.target is aten.outer.default:
        outer_to_product(graph, node)
    elif node.target is aten.linear.default and linear_form(node) is None:
        _bias_apart(graph, node)


def _squeeze_ones(node: fx.Node) -> None:
    """squeeze(x, dims) of what has size 1 now: a dim that shrinks to one index is not meant."""
    source = first_argument(node)
    shape = shape_of(source)
    given = argument(node, "dim") if node.target is not aten.squeeze.default else range(len(shape))
    dims = [given] if isinstance(given, int) else list(given)
    ones = [d for d in dims if is_static(shape[d]) and shape[d] == 1]
    if not ones:
        node.replace_all_uses_with(source)
    elif node.target is not aten.squeeze.dim:
        node.target, node.args, node.kwargs = aten.squeeze.dims, (source, ones), {}


def _bias_apart(graph: fx.Graph, node: fx.Node) -> None:
    """linear(x, W, b) that is no linear form because of b alone."""
    x, weight, bias = (*node.args, node.kwargs.get("bias"))[:3]
    if not isinstance(bias, fx.Node):
        return
    with graph.inserting_before(node):
        product = call(graph, aten.linear.default, x, weight)
        if linear_form(product) is None:
            graph.erase_node(product)
            return
        node.replace_all_uses_with(call(graph, aten.add.Tensor, product, bias))
    graph.erase_node(node)


def _rsub_to_add(graph: fx.Graph, node: fx.Node) -> None:
    x, number = node.args
    with graph.inserting_before(node):
        node.replace_all_uses_with(call(graph, aten.add.Tensor, call(graph, aten.neg.default, x), number))
    graph.erase_node(node)


def _stack_to_cat(graph: fx.Graph, node: fx.Node) -> None:
    pieces: Any = node.args[0]
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    dim %= node.meta["val"].dim()
    with graph.inserting_before(node):
        wide = [call(graph, aten.unsqueeze.default, piece, dim) for piece in pieces]
        node.replace_all_uses_with(call(graph, aten.cat.default, wide, dim))
    graph.erase_node(node)


def _reshape_as(graph: fx.Graph, node: fx.Node) -> None:
    source, other = node.args[:2]
    assert isinstance(other, fx.Node)
    with graph.inserting_before(node):
        sizes = [s if is_static(s) else call(graph, aten.sym_size.int, other, d) for d, s in enumerate(shape_of(other))]
        node.replace_all_uses_with(call(graph, aten.reshape.default, source, sizes))
    graph.erase_node(node)


def _drop_empty_pieces(node: fx.Node) -> None:
    pieces: Any = node.args[0]
    left = [piece for piece in pieces if 0 not in [s for s in shape_of(piece) if is_static(s)]]
    if left:
        node.args = (left, *node.args[1:])


def _one_result(graph: fx.Graph, node: fx.Node, target: Any) -> None:
    """The operator that gives the first result alone, where nobody reads another (deviations, indices)."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return
    with graph.inserting_before(node):
        new = call(graph, target, *node.args, **node.kwargs)
    for user in list(node.users):
        user.replace_all_uses_with(new)
        graph.erase_node(user)
    graph.erase_node(node)


def _split_to_slices(graph: fx.Graph, node: fx.Node) -> None:
    source = node.args[0]
    pieces: Any = node.meta["val"]
    assert isinstance(source, fx.Node)
    unbind = node.target is aten.unbind.int
    position = 1 if unbind else 2
    dim: Any = node.args[position] if len(node.args) > position else node.kwargs.get("dim", 0)
    rank = source.meta["val"].dim()
    dim %= rank
    if not isinstance(source.meta["val"].shape[dim], int):
        return
    offset = 0
    for number, piece in enumerate(pieces):
        size = 1 if unbind else int(piece.shape[dim])
        for user in [u for u in node.users if u.target is operator.getitem and u.args[1] == number]:
            with graph.inserting_before(user):
                if unbind:
                    new = graph.call_function(aten.select.int, (source, dim, number))
                else:
                    new = graph.call_function(aten.slice.Tensor, (source, dim, offset, offset + size))
            new.meta = dict(user.meta)
            user.replace_all_uses_with(new)
            graph.erase_node(user)
        offset += size
    if not node.users:
        graph.erase_node(node)
