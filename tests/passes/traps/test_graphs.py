"""Traps of the graph around: infinities, norms, empty tensors, in-place operators, guards, precision.

Trap 20 (weights too small to matter) is `test_architectures.test_every_parameter_moves_the_output`.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes.driver import least_precise
from tests.passes.traps.small import Attention, C, example, parameters_left, shape, shrink, without


class Overflow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        hidden = torch.cat([hidden[..., :1] * float("inf"), hidden[..., 1:]], -1)
        return self.second(hidden).nan_to_num(0.0)


def test_11_a_masked_weight_times_infinity_is_refused() -> None:
    graph = passes.trace(Overflow().double(), (example(),))
    with pytest.raises(ValueError, match=r"cat is not finite .* channels \[0\], and second.weight has zeros"):
        passes.shrink(graph, {"second.weight": without(C, columns_gone=[0])})
    assert passes.shrink(graph, {}).report.parameters_after  # no zeros meet it: nothing to refuse


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Linear(8, C), nn.LayerNorm(C), nn.Linear(C, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


def test_13_normalised_channels_stay_and_the_report_says_why() -> None:
    result = shrink(Residual(), {"first.weight": without(C, 8, gone=[0, 1])}, example(2, 5, 8))
    assert shape(result, "first.weight") == (C, 8)
    assert result.report.pinned == {"first.weight[0] (2 of 16)": "pinned: normalised by layer_norm"}


class Concatenated(nn.Module):
    """Concatenations of concatenations, a piece of one channel, an output of one channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = nn.Linear(8, 6), nn.Linear(8, 1), nn.Linear(8, 4), nn.Linear(8, 3)
        self.out, self.one = nn.Linear(14, 5), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.cat([self.a(x), self.b(x)], -1)
        outer = torch.cat([self.c(x), inner, self.d(x)], -1)
        return self.one(torch.tanh(self.out(torch.relu(outer))))


@pytest.mark.parametrize("dead_piece", ["a", "b", "c", "d"])
def test_15_no_empty_tensor_survives(dead_piece: str) -> None:
    model = Concatenated()
    weight = dict(model.named_parameters())[f"{dead_piece}.weight"]
    result = shrink(model, {f"{dead_piece}.weight": torch.zeros_like(weight, dtype=torch.bool)}, example(2, 5, 8))
    assert shape(result, "out.weight") == (5, 14 - len(weight) + 1)  # one index stays, so that modules can follow
    assert shape(result, f"{dead_piece}.weight") == (1, 8)
    values = [n.meta["val"] for n in result.graph_module.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    assert all(size != 0 for value in values for size in value.shape if isinstance(size, int))


def test_15_one_channel_that_is_dead() -> None:
    model = Concatenated()
    result = shrink(model, {"one.weight": torch.zeros(1, 5, dtype=torch.bool)}, example(2, 5, 8))
    assert all(name.startswith("constant") for name in parameters_left(result))


class Registers(nn.Module):
    """A parameter without entries, as vision models of zero register tokens have."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.up = nn.Parameter(torch.zeros(1, 0, 4)), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], 1))


def test_15_empty_parameters_of_the_models_own_go() -> None:
    result = shrink(Registers(), {"up.weight": torch.eye(4).bool()}, torch.randn(2, 3, 4).double())
    assert parameters_left(result) == {"up.weight", "up.bias"}


class MaxPool(nn.Module):
    """``x.max(dim)`` also returns where; here nobody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).max(dim=1).values)


def test_channels_go_through_a_maximum_over_positions() -> None:
    result = shrink(MaxPool(), {"up.weight": without(6, 4, gone=[1, 5])}, torch.randn(2, 3, 4).double())
    assert shape(result, "up.weight") == (4, 4)


class Normed(nn.Module):
    """Convolution, batch norm, nonlinearity: a masked channel is a number all the way, as a stem's or LeViT's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.down = nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6), nn.Linear(6, 4)
        for numbers in self.norm.state_dict().values():
            if numbers.is_floating_point():
                numbers.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.norm(self.up(x)).relu().mT)


def test_constant_channels_go_through_a_batch_norm() -> None:
    mask = without(6, 4, gone=[1, 5]).unsqueeze(-1)
    result = shrink(Normed(), {"up.weight": mask}, torch.randn(2, 4, 5).double())
    assert shape(result, "up.weight") == (4, 4, 1)
    assert shape(result, "norm.running_mean") == (4,)


class InPlace(nn.Module):
    def __init__(self, through_a_view: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.through_a_view = nn.Linear(8, 12), nn.Linear(12, 8), through_a_view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x)
        hidden.add_(1.0).relu_()
        if self.through_a_view:
            hidden[..., 0].mul_(2.0)
        return self.down(hidden)


@pytest.mark.parametrize("through_a_view", [False, True])
def test_16_in_place_operators_hide_nothing(through_a_view: bool) -> None:
    model = InPlace(through_a_view)
    result = shrink(model, {"up.weight": without(12, 8, gone=[0, 3])}, example(2, 5, 8))
    targets = [n.target for n in result.graph_module.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    assert not any(target._schema.is_mutable for target in targets)
    if not through_a_view:  # the constants relu(bias + 1) fold into the next bias
        assert shape(result, "down.weight") == (8, 10)


class Guarded(nn.Module):
    """Accepts at most six positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.positions = nn.Linear(8, 12), nn.Linear(12, 8), nn.Parameter(torch.randn(6, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x + self.positions[: x.shape[1]])))


def test_17_shapes_the_model_does_not_accept_are_skipped_not_wrong() -> None:
    result = passes.shrink(
        passes.trace(Guarded().double(), (example(2, 6, 8),)), {"up.weight": without(12, 8, gone=[0])}
    )
    assert result.report.agreement.shapes[0] == "example"
    assert shape(result, "up.weight") == (11, 8)


def test_19_the_least_precise_operator_sets_the_tolerance() -> None:
    class HalfHearted(Attention):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            scores = self.q(x) @ self.k(x).transpose(-1, -2)
            return self.o(scores.softmax(-1, dtype=torch.float32).to(x.dtype) @ self.v(x))

    graph = passes.trace(HalfHearted().double(), (example(),))
    assert least_precise(graph) is torch.float32
    difference = passes.shrink(graph, {"v.weight": without(C, gone=range(8))}).report.agreement.max_rel_diff
    assert 1e-10 < difference < 1e-6  # the rows sum to 1 in float32 only
