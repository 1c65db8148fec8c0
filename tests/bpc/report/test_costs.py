"""Arithmetic by layer, against formulas and against the whole graph's count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

import passes
from bpc.report.costs import arithmetic, layer_costs
from bpc.report.summary import summarize
from tests.bpc.report.conftest import DIM, FFN, HEADS

HIDDEN = 32


def test_layers_cost_what_their_shapes_say(
    graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpc.report.costs.LENGTHS", (64, 16))  # the model has 16 positions
    dense, small = arithmetic(graph, result.graph_module)
    assert dense is not None
    assert small is not None
    assert dense.inputs == "1×16"
    n = 16

    def layer(heads: int, dims: int) -> int:
        linears = n * HIDDEN * (4 * heads * DIM + 2 * dims)
        return 2 * (linears + 2 * heads * n * n * DIM)

    costs = layer_costs(summarize(graph, masks, result.plan), dense, small)
    assert [c.flops for c in costs] == [layer(HEADS, FFN)] * 2
    assert [c.small_flops for c in costs] == [layer(2, 5), layer(HEADS, FFN)]
    assert dense.by_block.keys() <= {"attention.0", "ffn.0", "attention.1", "ffn.1"}


def test_what_no_layer_spends_is_counted_too() -> None:
    """A classifier behind one FFN: its product is nobody's; a layer that died costs nothing."""
    torch.manual_seed(0)
    model = Tail().eval()
    graph = passes.trace(model, torch.randn(2, 8))
    dead = {"down.weight": torch.zeros(8, 12, dtype=torch.bool)}
    dense, small = arithmetic(graph, passes.shrink(graph, dead).graph_module)
    assert dense is not None
    assert small is not None
    assert (dense.by_block, dense.inputs) == ({"ffn.0": 2 * 2 * 8 * 12, "": 2 * 8 * 3}, "1×8")
    assert small.by_block == {"": 2 * 8 * 3}


class Tail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.down(self.up(x).relu()))
