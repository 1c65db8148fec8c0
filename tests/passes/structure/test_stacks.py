"""Encoder and decoder by data flow: what a cross-attention reads from, and what follows it."""

from __future__ import annotations

import torch
from torch import nn

from passes.frontend.trace import trace
from passes.structure.roles import find_roles


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return self.out(nn.functional.scaled_dot_product_attention(self.q(x), self.k(memory), self.v(memory)))


class TwoStreams(nn.Module):
    """Blocks in graph order: self-attention of the memory, of the stream, cross-attention, and one FFN on each."""

    def __init__(self, learned: bool = False) -> None:
        super().__init__()
        self.first, self.own, self.cross, self.last = (Attention() for _ in range(4))
        self.start = nn.Parameter(torch.randn(1, 3, 4)) if learned else None

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        memory = memory + self.first(memory, memory)
        if self.start is not None:
            return self.cross(self.start.expand(2, -1, -1), memory)
        x = x + self.own(x, x)
        x = x + self.cross(x, memory)
        return x + self.last(x, x)


def stacks(model: nn.Module) -> dict[str, str | None]:
    """{module: its side}."""
    inputs = (torch.randn(2, 3, 4), torch.randn(2, 5, 4))
    return {r.weight.split(".")[0]: r.stack for r in find_roles(trace(model, inputs, dynamic=False))}


def test_keys_read_the_encoder_and_the_decoder_is_the_rest() -> None:
    assert stacks(TwoStreams()) == {"first": "encoder", "own": "decoder", "cross": "decoder", "last": "decoder"}


def test_learned_queries_make_no_decoder() -> None:
    assert stacks(TwoStreams(learned=True)) == {"first": None, "cross": None}


def test_one_stream_has_no_sides() -> None:
    class OneStream(TwoStreams):
        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            x = x + memory.mean(1, keepdim=True)
            return x + self.own(nn.functional.layer_norm(x, (4,)), nn.functional.layer_norm(x, (4,)))

    assert stacks(OneStream()) == {"own": None}
