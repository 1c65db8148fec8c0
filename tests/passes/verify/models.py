"""Small models that verification is tried on, and graphs with a number changed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn import functional

from passes.ir.graph import copy_graph, get_attribute, set_attribute


class Net(nn.Module):
    """Embedding, two linears, a 0/1 mask: (B, T) ids and mask -> (B, T, 2), times ``scale``."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.up, self.down = nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 2)
        self.scale = scale

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(self.embedding(ids)))) * mask.unsqueeze(-1) * self.scale


class Decoder(nn.Module):
    """Causal attention under a padding mask (True = seen) with a value bias: (B, T) -> (B, T, 8).

    ``form``: "sdpa" (blind rows are 0) or "eager" (a softmax of minus infinities, NaN there).
    """

    def __init__(self, form: str = "sdpa", pooled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.pooled = form, pooled
        self.embedding, self.out = nn.Embedding(20, 8), nn.Linear(8, 8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x, n = self.embedding(ids), ids.shape[1]
        seen = mask.bool()[:, None] & torch.ones(n, n, dtype=torch.bool).tril()  # (B, T, T)
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.form == "sdpa":
            mixed = functional.scaled_dot_product_attention(q, k, v, seen)
        else:
            mixed = (q @ k.transpose(-1, -2)).masked_fill(~seen, -torch.inf).softmax(-1) @ v
        y = x + self.out(mixed)
        return y.mean(1) if self.pooled else y


def net_inputs(batch: int = 2, length: int = 5) -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 9, (batch, length), generator=torch.Generator().manual_seed(0))
    return {"ids": ids, "mask": torch.ones_like(ids)}


def changed(graph: fx.GraphModule, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> fx.GraphModule:
    """A copy of ``graph`` in which the parameter is another."""
    result = copy_graph(graph)
    set_attribute(result, name, nn.Parameter(change(get_attribute(graph, name).detach().clone())))
    return result
