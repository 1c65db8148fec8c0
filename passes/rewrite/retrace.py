"""graph  ->  torch.export(graph): the same operators with true shapes in their metadata."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from passes.base import Pass, PassResult
from passes.program import retrace


@dataclass(frozen=True)
class Retrace(Pass):
    name = "retrace"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        return PassResult(retrace(graph_module), False)
