"""A module is checked against the graph by what rounding explains, on more than one shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes.plan.check import example_check
from passes.plan.errors import ModuleViewError


class Scaled(nn.Module):
    """Outputs of about 1e-6: a tolerance beside 1 would let anything through."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.error = nn.Linear(8, 8), error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * 1e-6 * (1 + self.error)


class Short(Scaled):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.shape[0] == 3 else super().forward(x)[:1]


def test_small_outputs_are_held_to_their_own_size() -> None:
    check = example_check(passes.trace(Scaled().eval(), torch.randn(3, 8)))
    assert check.failure(Scaled().eval()) is None
    assert "times what rounding explains" in str(check.failure(Scaled(error=0.01)))


def test_other_shapes_than_the_example_count() -> None:
    check = example_check(passes.trace(Scaled().eval(), torch.randn(3, 8)))
    assert "has shape (1, 8)" in str(check.failure(Short()))


def test_the_mode_of_the_module_is_left_alone() -> None:
    module = Scaled().train()
    assert example_check(passes.trace(Scaled().eval(), torch.randn(3, 8))).failure(module) is None
    assert module.training


def test_outputs_that_are_not_finite_check_nothing() -> None:
    model = Scaled().eval()
    graph = passes.trace(model, torch.randn(3, 8))
    with torch.no_grad():
        model.linear.weight.fill_(torch.inf)
    with pytest.raises(ModuleViewError, match=r"nothing to check a module against.*not finite"):
        example_check(graph)
