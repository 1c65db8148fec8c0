"""What holds of every graph after every pass."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

from passes.ir.graph import get_attribute
from passes.ir.sizes import is_parameter

aten = torch.ops.aten


class GraphInvariantError(RuntimeError):
    """A rewritten graph is not well formed."""


def empty_parameters(graph_module: fx.GraphModule) -> set[str]:
    """Names of the parameters without entries: a model may have layers of width 0, a pass must not make any."""
    return {name for name, tensor in graph_module.state_dict(keep_vars=True).items() if tensor.numel() == 0}


def check_graph(graph_module: fx.GraphModule, may_be_empty: Collection[str] = ()) -> None:
    """No dangling names, no parameter without entries but those named, no node reads an erased one."""
    graph_module.graph.lint()
    for node in graph_module.graph.nodes:
        if is_parameter(node):
            try:
                tensor = get_attribute(graph_module, str(node.target))
            except AttributeError:
                raise GraphInvariantError(f"{node.name} reads {node.target}, which does not exist") from None
            if isinstance(tensor, torch.Tensor) and tensor.numel() == 0 and node.target not in may_be_empty:
                raise GraphInvariantError(f"{node.target} has no entries: shape {tuple(tensor.shape)}")
