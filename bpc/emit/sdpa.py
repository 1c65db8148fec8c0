"""Attention as torch.onnx takes it: every head with its own keys.

PyTorch broadcasts one key/value head over all query heads; the exporter refuses.
"""

from __future__ import annotations

import torch
from torch import fx

from passes.channels import shape_of
from passes.graph import copy_graph

aten = torch.ops.aten


def exportable_attention(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy in which attention nodes read keys and values expanded to their heads."""
    result = copy_graph(graph_module)
    for node in result.graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        _expand_heads(node)
    result.recompile()
    return result


def _expand_heads(node: fx.Node) -> None:
    query, *others = node.args[:3]
    assert isinstance(query, fx.Node)
    heads = shape_of(query)[1] if len(shape_of(query)) == 4 else 1
    for position, value in enumerate(others, start=1):
        assert isinstance(value, fx.Node)
        if node.kwargs.get("enable_gqa") or len(shape_of(value)) != 4 or shape_of(value)[1] != 1 or heads == 1:
            continue
        with node.graph.inserting_before(node):
            wide = node.graph.call_function(aten.expand.default, (value, [-1, heads, -1, -1]))
        node.update_arg(position, wide)
