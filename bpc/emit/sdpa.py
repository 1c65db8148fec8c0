"""Attention as torch.onnx and ONNX Runtime take it: every head with its own keys, masks with a row per query.

PyTorch broadcasts one key/value head over all query heads, and a mask's one row (padding) over all queries; the
exporter refuses the first, ONNX Runtime the second.
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.graph import copy_graph
from passes.ir.sizes import is_static, shape_of

aten = torch.ops.aten


def exportable_attention(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy in which attention nodes read keys and values expanded to their heads, masks to their rows and columns."""
    result = copy_graph(graph_module)
    for node in result.graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        _expand_mask(node)  # first: it reads the lengths of the keys
        _expand_heads(node)
    result.recompile()
    return result


def _expand_heads(node: fx.Node) -> None:
    """Every query head gets its own keys and values, grouped queries' (``enable_gqa``) as well."""
    query, *others = node.args[:3]
    assert isinstance(query, fx.Node)
    heads = shape_of(query)[1] if len(shape_of(query)) == 4 else 1
    for position, value in enumerate(others, start=1):
        assert isinstance(value, fx.Node)
        if len(shape_of(value)) != 4 or not is_static(heads) or shape_of(value)[1] == heads:
            continue
        graph, group = node.graph, int(heads) // int(shape_of(value)[1])
        with graph.inserting_before(node):
            apart = graph.call_function(aten.unsqueeze.default, (value, 2))
            wide = graph.call_function(aten.expand.default, (apart, [-1, -1, group, -1, -1]))
            node.update_arg(position, graph.call_function(aten.flatten.using_ints, (wide, 1, 2)))
    node.kwargs = {name: value for name, value in node.kwargs.items() if name != "enable_gqa"}


def _expand_mask(node: fx.Node) -> None:
    query, key = node.args[:2]
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if not isinstance(mask, fx.Node) or len(shape_of(mask)) < 2:
        return
    with node.graph.inserting_before(node):
        sizes = [-1] * (len(shape_of(mask)) - 2) + [
            _length(source) if _is_one(shape_of(mask)[dim]) and not _is_one(shape_of(source)[-2]) else -1
            for dim, source in ((-2, query), (-1, key))
            if isinstance(source, fx.Node)
        ]
        if all(size == -1 for size in sizes):
            return
        node.replace_input_with(mask, node.graph.call_function(aten.expand.default, (mask, sizes)))


def _length(value: fx.Node) -> int | fx.Node:
    """Queries or keys of a (.., N, D) value."""
    shape = shape_of(value)
    if is_static(shape[-2]):
        return int(shape[-2])
    return value.graph.call_function(aten.sym_size.int, (value, len(shape) - 2))


def _is_one(size: object) -> bool:
    return is_static(size) and size == 1
