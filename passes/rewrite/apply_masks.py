"""W  ->  W * mask

Writes the masks into the weights, so that everything after this pass sees plain numbers.
Precondition: every mask is a bool tensor of its parameter's shape (see `passes.masks`).
Postcondition: masked entries are exactly 0; the caller's tensors are untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from passes.base import Pass, PassResult
from passes.graph import copy_graph, get_attribute, set_attribute


@dataclass(frozen=True)
class ApplyMasks(Pass):
    """``masks``: {parameter name: bool tensor}, True where the entry is kept."""

    masks: Mapping[str, torch.Tensor]
    name = "apply-masks"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        modified = False
        for name, mask in self.masks.items():
            tensor = get_attribute(result, name).detach()
            if bool(mask.all()):
                continue
            masked = torch.where(
                mask.to(tensor.device), tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device)
            )
            set_attribute(result, name, torch.nn.Parameter(masked, requires_grad=False))
            modified = True
        return PassResult(result, modified, {"masked parameters": len(self.masks)})
