"""W  ->  W * mask

Writes the masks into the weights, so that everything after this pass sees plain numbers.
Precondition: every mask is a bool tensor of its parameter's shape (see `passes.masks`).
Postcondition: masked entries are exactly 0; the caller's tensors are untouched. Refusals: masks that fit no parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from passes.ir.graph import copy_graph, get_attribute, set_numbers
from passes.ir.manager import Pass, PassResult
from passes.ir.tensors import masked
from passes.masks.check import MaskError


@dataclass(frozen=True)
class ApplyMasks(Pass):
    """``masks``: {parameter name: bool tensor}, True where the entry is kept."""

    masks: Mapping[str, torch.Tensor]
    name = "apply-masks"

    def requires(self, graph_module: fx.GraphModule) -> None:
        used = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
        for name, mask in self.masks.items():
            if name not in used:
                raise MaskError(f"mask for {name!r}: the graph reads no parameter of that name")
            shape = tuple(get_attribute(graph_module, name).shape)
            if tuple(mask.shape) != shape:
                raise MaskError(f"mask for {name!r} has shape {tuple(mask.shape)}; the parameter has {shape}")

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        modified = False
        for name, mask in self.masks.items():
            tensor = get_attribute(result, name).detach()
            zeroed = masked(tensor, mask)
            if torch.equal(zeroed, tensor):
                continue
            set_numbers(result, name, zeroed)
            modified = True
        return PassResult(result, modified, {"masked parameters": len(self.masks)})
