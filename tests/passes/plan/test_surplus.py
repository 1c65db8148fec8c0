"""Why a module is larger than the graph is said in one line."""

from __future__ import annotations

from torch import nn

from passes.plan.surplus import surplus


def test_what_the_graph_lost_and_what_a_forward_needs_are_told_apart() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2), nn.Linear(2, 1))
    graph = {name: parameter.numel() for name, parameter in module.named_parameters()}
    assert surplus(module, graph, {}) == ""
    graph["1.weight"] = 4
    assert surplus(module, graph, {}) == "2 more than the graph: 2 because its forward needs more of a weight (1)"
    lost = {name: size for name, size in graph.items() if name[0] in "01"}
    assert surplus(module, lost, {}) == (
        "15 more than the graph: 13 because its forward runs what the graph has lost (2, 3, 4), "
        "2 because its forward needs more of a weight (1)"
    )
    tied = {"4.weight": "0.weight"}
    assert surplus(nn.Sequential(nn.Linear(2, 3)), {"0.weight": 6, "0.bias": 3}, tied) == ""
