"""The default: nothing constant, everything read, every dim of inputs and result stays, for the reason given."""

from __future__ import annotations

import torch
from torch import nn

import passes
from passes.ops.table import unknown_operators
from passes.ops.unknown import UNKNOWN
from tests.passes.sketch import Sketch, reason

aten = torch.ops.aten


def test_nothing_is_known_of_an_operator_without_a_rule() -> None:
    sketch = Sketch()
    x = sketch.free(3, 4)
    out = sketch.call(aten.tril.default, sketch.call(aten.mul.Tensor, x, 0.0))
    source = out.args[0]
    assert isinstance(source, torch.fx.Node)
    fact = UNKNOWN.constant(out, None)  # type: ignore[arg-type]
    assert not bool(fact.const.any())
    assert fact.value.dtype is torch.float64
    live = UNKNOWN.live(out, torch.zeros(3, 4, dtype=torch.bool), None)  # type: ignore[arg-type]
    assert bool(live[source].all())
    coupling = sketch.coupling({})
    for value in (out, source):
        for dim in (0, 1):
            assert reason(coupling, value, dim) == "used by an operator without a transfer rule"


@torch.library.custom_op("bpc_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1).clone()


@mystery.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Mystery(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(mystery(self.up(x)))


def test_an_operator_nobody_knows_keeps_everything_and_is_named() -> None:
    graph = passes.trace(Mystery().double(), torch.randn(3, 6, dtype=torch.float64))
    assert unknown_operators(graph.graph) == ["bpc_tests.mystery.default"]
    dead_rows = torch.ones(8, 6, dtype=torch.bool)
    dead_rows[:3] = False
    report = passes.shrink(graph, {"up.weight": dead_rows}).report
    assert report.parameters_after == report.parameters_before
    assert report.unknown_operators == ("bpc_tests.mystery.default",)
    assert report.pinned == {"up.weight[0] (3 of 8)": "pinned: used by an operator without a transfer rule"}
