"""Graphs that no pass may leave behind are refused, naming what is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.ir.graph import copy_graph, set_attribute
from passes.ir.invariants import GraphInvariantError, check_graph
from passes.ir.manager import Pass, PassError, PassManager, PassResult


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


@pytest.fixture
def graph() -> torch.fx.GraphModule:
    return trace(Net(), torch.randn(2, 5, 4))


def test_dangling_names_and_empty_parameters_are_broken_graphs(graph: torch.fx.GraphModule) -> None:
    dangling = copy_graph(graph)
    node = next(n for n in dangling.graph.nodes if n.target == "up.weight")
    node.target = "gone.weight"
    with pytest.raises((GraphInvariantError, RuntimeError), match=r"gone\.weight"):
        check_graph(dangling)
    empty = copy_graph(graph)
    set_attribute(empty, "up.weight", nn.Parameter(torch.zeros(0, 4)))
    with pytest.raises(GraphInvariantError, match=r"up\.weight has no entries"):
        check_graph(empty)


class Break(Pass):
    """Empties a parameter."""

    name = "break"

    def run(self, graph_module: torch.fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        set_attribute(result, "up.weight", nn.Parameter(torch.zeros(0, 4)))
        return PassResult(result, True)


class Nothing(Pass):
    name = "nothing"

    def run(self, graph_module: torch.fx.GraphModule) -> PassResult:
        return PassResult(graph_module, False)


def test_the_manager_names_the_pass_that_broke_the_graph(graph: torch.fx.GraphModule) -> None:
    with pytest.raises(PassError, match=r"pass break left a broken graph \(after nothing\): up.weight"):
        PassManager((Nothing(), Break())).run(graph)
    outcome = PassManager((Nothing(), Nothing())).run(graph)
    assert (outcome.modified, outcome.graph_module) == (False, graph)
