"""Modules small enough to count by hand, and how to shrink them: shared by the tests of the traps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

import passes
from passes.ir.graph import get_attribute

H, D, C = 4, 4, 16  # heads, dims per head, channels


Angles = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Attention(nn.Module):
    """Residual attention, separate projections. ``form``: sdpa, eager, or a way to serve grouped queries.

    ``rotary``: how angles are computed from positions (N,) and rates (D,).
    """

    def __init__(self, form: str = "sdpa", kv_heads: int = H, rotary: Angles | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.kv_heads, self.rotary = form, kv_heads, rotary
        self.q, self.o = nn.Linear(C, C), nn.Linear(C, C)
        self.k, self.v = nn.Linear(C, kv_heads * D), nn.Linear(C, kv_heads * D)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, -1, D).transpose(1, 2) for f in (self.q, self.k, self.v))  # (B, heads, N, D)
        if self.rotary is not None:
            rates = torch.tensor([1.0, 0.1], dtype=x.dtype).repeat(2)
            angle = self.rotary(torch.arange(n, dtype=x.dtype), rates)  # (N, D)
            q, k = (
                y * angle.cos() + torch.cat([-y[..., D // 2 :], y[..., : D // 2]], -1) * angle.sin() for y in (q, k)
            )
        group = H // self.kv_heads
        if self.form == "repeat_interleave":
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        elif self.form == "expand":
            k, v = (y[:, :, None].expand(b, self.kv_heads, group, n, D).reshape(b, H, n, D) for y in (k, v))
        if self.form == "eager":
            mixed = (q @ k.transpose(-1, -2) * D**-0.5).softmax(-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=self.form == "gqa")
        return x + self.o(mixed.transpose(1, 2).reshape(b, n, C))


def example(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (2, 5, C)), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def shrink(model: nn.Module, masks: dict[str, torch.Tensor], *inputs: torch.Tensor) -> Any:
    """The verified result: `shrink` compares the graphs in float64 to 1e-10 on several shapes."""
    result = passes.shrink(passes.trace(model.double(), inputs or (example(),)), masks)
    assert result.report.agreement is not None
    assert not result.report.agreement.skipped
    return result


def without(rows: int, columns: int = C, gone: Any = (), columns_gone: Any = ()) -> torch.Tensor:
    mask = torch.ones(rows, columns, dtype=torch.bool)
    mask[list(gone)] = False
    mask[:, list(columns_gone)] = False
    return mask


def dead(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(C, C, dtype=torch.bool) for name in names}


def shape(result: Any, name: str) -> tuple[int, ...]:
    return tuple(get_attribute(result.graph_module, name).shape)


def calls(result: Any, target: Any) -> list[fx.Node]:
    return [n for n in result.graph_module.graph.nodes if n.target is target]


def parameters_left(result: Any) -> set[str]:
    return {str(n.target) for n in result.graph_module.graph.nodes if n.op == "get_attr"}
