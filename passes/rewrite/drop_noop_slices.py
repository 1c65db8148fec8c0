"""slice(x, dim, 0, end)  ->  x        where the slice reads all of x

Masks are often indexed with full ranges (``mask[:, None, :]``), and shrinking may leave a slice of all that is left.

Preconditions: true metadata. Postconditions: no slice reads a whole dimension. Refusals: bounds that are computed, and
dimensions of symbolic size with a literal end (the size may be larger).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import fx

from passes.ir.graph import copy_graph
from passes.ir.manager import Pass, PassResult
from passes.ir.sizes import is_static, shape_of, tensor_inputs
from passes.ops.pieces import slice_arguments

aten = torch.ops.aten


@dataclass(frozen=True)
class DropNoopSlices(Pass):
    name = "drop-noop-slices"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        dropped = [node for node in result.graph.nodes if node.target is aten.slice.Tensor and reads_all(node)]
        for node in dropped:
            node.replace_all_uses_with(tensor_inputs(node)[0])
            result.graph.erase_node(node)
        result.recompile()
        return PassResult(result, bool(dropped), {"dropped": len(dropped)})


def reads_all(node: fx.Node) -> bool:
    """Whether a slice node returns its input whole."""
    dim, start, end, step = slice_arguments(node)
    if start not in (None, 0) or step != 1 or isinstance(end, fx.Node):
        return False
    size = shape_of(tensor_inputs(node)[0])[dim]
    return end in (None, sys.maxsize) or (is_static(size) and end >= size)
