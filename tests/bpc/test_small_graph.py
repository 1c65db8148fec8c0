"""Graphs of parts of small modules lose what only the module's forward keeps."""

from __future__ import annotations

import torch
from torch import nn

import passes
from bpc.directory import GraphCuts
from bpc.small_graph import on_cpu, part_graph
from passes.plan.plan import ModuleView
from passes.report import count_parameters


def test_a_part_loses_the_zeros_that_its_module_had_to_keep() -> None:
    part = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        part[0].weight[:2] = part[0].bias[:2] = 0
    x = torch.randn(5, 4)
    traced = passes.trace(part, (x,))
    result = passes.shrink(traced)
    cuts = GraphCuts(result.plan, result.report.parameters_after, "dims", 1)
    followed, kept = (ModuleView(part, result.plan, "dims", refusal) for refusal in ("", "one size for all layers"))
    assert count_parameters(part_graph(traced, followed, cuts)) == count_parameters(traced)
    graph = part_graph(traced, kept, cuts)
    assert count_parameters(graph) == 4 * 5 + 3 * 5
    torch.testing.assert_close(graph(x), part(x))


def test_a_module_on_the_cpu_is_no_copy() -> None:
    layer = nn.Linear(2, 2)
    assert on_cpu(layer) is layer
