"""graph  ->  the same graph with true shapes in its metadata (see `passes.ir.metadata`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from passes.ir.graph import copy_graph
from passes.ir.manager import Pass, PassResult
from passes.ir.metadata import propagate_metadata


@dataclass(frozen=True)
class Retrace(Pass):
    name = "retrace"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        propagate_metadata(result)
        return PassResult(result, False)
