"""Input guards: a graph refuses what the model would have treated otherwise, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes.ir.info import InputError

X = torch.randn(4, 5, 6)


class Branches(nn.Module):
    """Long inputs, odd batches and a flag are treated apart."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, negate: bool = False) -> torch.Tensor:
        if x.shape[1] > 8 or x.shape[0] % 2:
            x = 2 * x
        return -self.linear(x) if negate else self.linear(x)


class Unit(nn.Module):
    """A batch of one is squeezed away: torch.export records no guard for that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(0) if x.shape[0] == 1 else x * 2


@pytest.fixture(scope="module")
def graph() -> torch.fx.GraphModule:
    return passes.trace(Branches(), {"x": X, "negate": False})


@pytest.mark.parametrize(
    ("x", "negate", "reason"),
    [
        (torch.randn(4, 9, 6), False, r"'x' must have size 8 or less in dim 1; got 9"),
        (torch.randn(3, 5, 6), False, r"\(x.size\(0\) % 2\) == 0 \(test_guards.py:\d+\); got \(3,\)"),
        (torch.randn(4, 5, 7), False, r"'x' must have size 6 in dim 2; got 7"),
        (torch.randn(4, 6), False, r"'x' must be a tensor of 3 dims"),
        (X, True, "'negate' must be False; got True"),
    ],
)
def test_what_the_trace_does_not_hold_for_is_refused(
    graph: torch.fx.GraphModule, x: torch.Tensor, negate: bool, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        graph(x=x, negate=negate)


def test_a_size_of_one_that_the_model_treats_apart_is_refused() -> None:
    graph, x = passes.trace(Unit(), torch.randn(3, 4)), torch.randn(5, 1)
    torch.testing.assert_close(graph(x), 2 * x)
    with pytest.raises(InputError, match="'x' must be longer than 1 in dim 0"):
        graph(torch.randn(1, 4))
