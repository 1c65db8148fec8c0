"""Every way to multiply by a weight matrix, and what is none."""

from __future__ import annotations

import torch
from torch import nn

from passes.frontend.trace import trace
from passes.structure.weight_uses import weight_uses


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.stored = nn.Parameter(torch.randn(4, 6))
        self.turned = nn.Parameter(torch.randn(6, 4))
        self.packed = nn.Parameter(torch.randn(12, 4))
        self.bias = nn.Parameter(torch.randn(6))
        self.shared = nn.Linear(6, 6, bias=False)
        self.register_buffer("table", torch.randn(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x + 1  # (B, 4)
        y = self.linear(rows) * torch.addmm(self.bias, rows, self.stored)
        y = y * (rows @ self.turned.t() + self.bias)
        y = y * nn.functional.linear(rows, self.packed[6:])
        y = self.shared(self.shared(y))
        return y * (rows @ self.table) * (rows @ (self.stored * 2)) * (y @ y.t()).sum()


def test_weights_biases_and_orientations() -> None:
    found = weight_uses(trace(Products(), torch.randn(3, 4), dynamic=False)).values()
    assert [(use.weight, use.bias, use.out_dim) for use in found] == [
        ("linear.weight", "linear.bias", 0),
        ("stored", "bias", 1),
        ("turned", "bias", 0),
        ("packed", None, 0),
        ("shared.weight", None, 0),
        ("shared.weight", None, 0),
    ]


def test_the_input_is_the_other_operand() -> None:
    uses = list(weight_uses(trace(Products(), torch.randn(3, 4), dynamic=False)).values())
    assert len({use.input for use in uses[:4]}) == 1
    assert uses[5].input is uses[4].node
