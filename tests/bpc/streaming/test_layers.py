"""Layers with numbers tell apart what shapes cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from bpc.streaming.layers import compare_layers
from passes import VerificationError


class Heads(nn.Module):
    """Rows are softmaxed in ``heads`` pieces: the shape says nothing of their number."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.inner, self.outer = 2, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = self.inner(x).unflatten(-1, (self.heads, -1)).softmax(-1)
        return x + self.outer(pieces.flatten(-2))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Heads() for _ in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return Stack()


def compare(model: nn.Module, small: nn.Module, **options: Any) -> Any:
    shells = [copy.deepcopy(m).to("meta") for m in (model, small)]
    inputs = ((torch.empty(2, 3, 8, device="meta"),), dict[str, Any]())
    return compare_layers(*shells, dict(model.state_dict()), dict(small.state_dict()), inputs, **options)


@torch.no_grad()
def test_the_first_the_middle_and_the_last_are_compared(model: Any) -> None:
    small = copy.deepcopy(model)
    found = compare(model, small)
    assert found.compared == ("layers.0", "layers.2", "layers.4")
    assert found.worst <= 1
    first = compare(model, small, first=True)
    assert first.compared == ("layers.0",)
    small.layers[0].inner.weight[0, 0] += 1e-3  # which is known, and not compared again
    assert compare(model, small, known=first).compared == found.compared
    small.layers[2].inner.weight[0, 0] += 1e-3
    with pytest.raises(VerificationError, match=r"layers\.2 of the small model is .* times as far"):
        compare(model, small, known=first)


def test_a_wrong_number_of_heads_is_found(model: Any) -> None:
    small = copy.deepcopy(model)
    for layer in small.layers:
        layer.heads = 4
    with pytest.raises(VerificationError, match=r"layers\.0 of the small model"):
        compare(model, small)
