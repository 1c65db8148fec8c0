"""The first value that differs is the first that rounding does not explain, and that the outputs depend on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.verify.compare import verify_equivalent
from passes.verify.diverge import first_divergence
from passes.verify.errors import VerificationError
from tests.passes.verify.models import changed


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


@pytest.fixture(params=[torch.float32, torch.float64])
def graph(request: pytest.FixtureRequest) -> torch.fx.GraphModule:
    return trace(Chain().to(request.param), torch.randn(2, 5, 8, dtype=request.param))


@pytest.mark.parametrize("tolerance", [None, 0.0, 1e-9])
def test_the_first_wrong_value_is_named_whatever_the_tolerance(
    graph: torch.fx.GraphModule, tolerance: float | None
) -> None:
    last = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)[1]
    wrong = changed(graph, "b.weight", lambda w: w * 1.001)
    # a.weight rounds otherwise: its linear differs too, but by no more than rounding
    wrong = changed(wrong, "a.weight", lambda w: w * (1 + 0.25 * torch.finfo(w.dtype).eps))
    with pytest.raises(VerificationError, match=rf"First value that differs: {last.name} \("):
        verify_equivalent(graph, wrong, tolerance=tolerance)


def test_a_tolerance_below_rounding_blames_nobody(graph: torch.fx.GraphModule) -> None:
    other = changed(graph, "a.weight", lambda w: torch.nextafter(w, w + 1))
    with pytest.raises(VerificationError, match="agrees within rounding"):
        verify_equivalent(graph, other, tolerance=0.0)


def test_values_that_nothing_reads_are_not_blamed() -> None:
    class Ignoring(Chain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(torch.tanh(self.b(torch.tanh(self.a(x)) * torch.tensor([1.0] * 4 + [0.0] * 4))))

    def last(weight: torch.Tensor) -> torch.Tensor:
        weight[4:] = 0
        return weight

    graph = trace(Ignoring(), torch.randn(2, 5, 8))
    cleared = changed(graph, "a.weight", last)
    x = torch.randn(2, 5, 8)
    assert "no output" in first_divergence(graph, cleared, (x,), {})
    both = changed(cleared, "c.bias", lambda b: b + 1)
    linear = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)[2]
    assert f"First value that differs: {linear.name} (" in first_divergence(graph, both, (x,), {})
