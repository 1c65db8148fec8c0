"""Two symbols that make a plain number of each other are one."""

from __future__ import annotations

import torch
from torch import nn

import passes
from passes.ir.sizes import is_static, shape_of

aten = torch.ops.aten


class Viewed(nn.Module):
    """Keys are viewed by the batch of the queries, as nn.MultiheadAttention does."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, 8), nn.Linear(8, 8)  # widths are channels

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return self.k(k).reshape(q.shape[0], 2, -1) + self.q(q)[:, :1, None]


def test_keys_viewed_by_the_batch_of_the_queries_have_static_heads() -> None:
    graph = passes.trace(Viewed(), (torch.randn(3, 4), torch.randn(3, 8)))
    shapes = [shape_of(n) for n in graph.graph.nodes if n.target is aten.reshape.default]
    assert [[is_static(s) for s in shape] for shape in shapes] == [[False, True, True]]
