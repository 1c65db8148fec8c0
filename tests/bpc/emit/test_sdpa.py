"""Attention nodes on their way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import passes
from bpc.emit.onnx import export_onnx


class LearnedBias(nn.Module):
    """Self-attention of 4 heads of 7 dims under a trainable position bias, as in T5."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.randn(1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q = x.view(batch, length, 4, 7).transpose(1, 2)
        distance = torch.arange(length)[:, None] - torch.arange(length)
        y = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=self.slope * distance)
        return y.transpose(1, 2).reshape(batch, length, width)


@pytest.mark.parametrize("trainable", [True, False])
def test_attention_under_a_learned_bias_is_exported(trainable: bool, tmp_path: Path) -> None:
    graph = passes.trace(LearnedBias().requires_grad_(trainable), torch.randn(2, 5, 28))
    agreement = export_onnx(graph, tmp_path / "model.onnx").agreement
    assert agreement is not None
    assert agreement.max_abs_diff <= 1e-5


class Broadcast(nn.Module):
    """Attention under a mask with one row for all queries, or one column for all keys."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, q: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        mask = keep.view(self.shape)
        return torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)


@pytest.mark.parametrize("shape", [(2, 1, 1, -1), (2, 1, -1, 1)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_that_broadcast_are_exported(shape: tuple[int, ...], dtype: torch.dtype, tmp_path: Path) -> None:
    keep = (torch.arange(5).expand(2, 5) < torch.tensor([[5], [3]])).to(dtype)
    if dtype is torch.bool and shape[-1] == 1:
        keep = torch.ones_like(keep)  # a hidden query sees no key
    graph = passes.trace(Broadcast(shape), (torch.randn(2, 3, 5, 4), keep))
    agreement = export_onnx(graph, tmp_path / "model.onnx").agreement
    assert agreement is not None
    assert agreement.max_abs_diff <= 1e-5


class Grouped(nn.Module):
    """Two query heads read one key head, under a number of their own each."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(2))

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        mask = self.bias.view(1, 2, 1, 1)
        return torch.nn.functional.scaled_dot_product_attention(q, k, k, attn_mask=mask, enable_gqa=True)


def test_grouped_heads_under_a_mask_that_broadcasts_are_exported(tmp_path: Path) -> None:
    graph = passes.trace(Grouped(), (torch.randn(2, 2, 5, 4), torch.randn(2, 1, 7, 4)))
    agreement = export_onnx(graph, tmp_path / "model.onnx").agreement
    assert agreement is not None
    assert agreement.max_abs_diff <= 1e-5
