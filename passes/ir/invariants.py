"""What holds of every graph after every pass."""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.graph import get_attribute
from passes.ir.sizes import is_parameter

aten = torch.ops.aten


class GraphInvariantError(RuntimeError):
    """A rewritten graph is not well formed."""


def check_graph(graph_module: fx.GraphModule) -> None:
    """No dangling names, no parameter without entries, no node reads an erased one."""
    graph_module.graph.lint()
    for node in graph_module.graph.nodes:
        if is_parameter(node):
            try:
                tensor = get_attribute(graph_module, str(node.target))
            except AttributeError:
                raise GraphInvariantError(f"{node.name} reads {node.target}, which does not exist") from None
            if isinstance(tensor, torch.Tensor) and tensor.numel() == 0:
                raise GraphInvariantError(f"{node.target} has no entries: shape {tuple(tensor.shape)}")
