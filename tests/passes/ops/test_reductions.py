"""Standard deviations reduce as variances do: the reduced dim stays whole, the others shrink."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes.ops.rule import Kind
from passes.ops.table import kind_of


class Spread(nn.Module):
    """(batch, time, 4) -> (batch, time, 3, 6) -> its spread over ``dim``."""

    def __init__(self, dim: int, width: int, keepdim: bool, **how: float) -> None:
        super().__init__()
        self.dim, self.keepdim, self.how = dim, keepdim, how
        self.up, self.down = nn.Linear(4, 18), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.up(x).unflatten(-1, (3, 6))
        return self.down(torch.std(heads, self.dim, keepdim=self.keepdim, **self.how))


@pytest.mark.parametrize("how", [{}, {"unbiased": False}, {"correction": 0}])
@pytest.mark.parametrize(
    ("dim", "width", "keepdim", "dead", "left"),
    [
        (-1, 3, False, [1], 12),  # nobody reads the spread of the second head
        (2, 6, False, [5], 15),  # nor that of the last dim over the heads
        (1, 6, True, [0, 5], 12),  # nor those of two dims over time
    ],
)
def test_spreads_that_nobody_reads_go(
    dim: int, width: int, keepdim: bool, dead: list[int], left: int, how: dict[str, float]
) -> None:
    torch.manual_seed(0)
    module = Spread(dim, width, keepdim, **how).double()
    with torch.no_grad():
        module.down.weight[:, dead] = 0
    result = passes.shrink(passes.trace(module, torch.randn(2, 5, 4).double()))
    assert not result.report.unknown_operators
    assert result.plan.small_shape("up.weight", (18, 4)) == (left, 4)
    x = torch.randn(4, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(result.graph_module(x), module(x), rtol=0, atol=1e-12)


def test_a_zero_among_what_is_spread_stays_with_the_reason() -> None:
    torch.manual_seed(0)
    module = Spread(-1, 3, False).double()
    with torch.no_grad():
        module.up.weight[5::6] = 0
        module.up.bias[5::6] = 0
    result = passes.shrink(passes.trace(module, torch.randn(2, 5, 4).double()))
    assert result.plan.small_shape("up.weight", (18, 4)) == (18, 4)
    assert "reduced by std: over fewer channels" in str(result.report)


def test_roles_are_told_that_it_is_a_reduction() -> None:
    graph = passes.trace(Spread(-1, 3, False), torch.randn(2, 5, 4)).graph
    (node,) = (n for n in graph.nodes if n.target is torch.ops.aten.std.dim)
    assert kind_of(node) is Kind.REDUCTION
