"""Attention cores by their operands and sizes, with nothing around them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.structure.attention_cores import AttentionCore, find_attention_cores

Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Q, K, V = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6)  # (B, H, T, d)


class Core(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.mix = forward

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return self.mix(q, k, v)


def cores(forward: Forward) -> list[AttentionCore]:
    return find_attention_cores(trace(Core(forward), (Q, K, V), dynamic=False).graph)


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v)


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return ((q @ k.mT) / 2 + q.new_ones(5, 7)).softmax(-1) @ v


def keys_first(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (k @ q.mT).softmax(-2).mT @ v


def turned(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return v.mT.matmul((q @ k.mT).permute(3, 0, 1, 2).softmax(0).permute(1, 2, 0, 3)).mT


def einsum(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    probs = torch.einsum("bhqd, bhkd -> bhkq", q, k).softmax(2)
    return torch.einsum("bhke, bhkq -> bhqe", v, probs)


def behind(node: torch.fx.Node) -> str:
    while node.op != "placeholder":
        (node,) = node.all_input_nodes
    return str(node.target)


@pytest.mark.parametrize("form", [fused, written_out, keys_first, turned, einsum])
def test_operands_and_sizes(form: Forward) -> None:
    (core,) = cores(form)
    operands = (core.queries, core.keys, core.values)
    assert [[behind(node) for node in nodes] for nodes in operands] == [["q"], ["k"], ["v"]]
    assert (core.head_dim, core.value_dim) == (4, 6)
    # Sizes of written-out scores say how many heads there are only where the keys come last.
    assert core.heads == (3 if form in (fused, written_out) else None)


def test_the_output_is_what_mixes_the_values() -> None:
    (core,) = cores(lambda q, k, v: written_out(q, k, v).transpose(1, 2).relu())
    assert tuple(core.output.meta["val"].shape) == (2, 3, 5, 6)


@pytest.mark.parametrize(
    "lookalike",
    [
        lambda q, k, v: q.softmax(-1) @ k.mT,  # a linear attention's query: no scores before the softmax
        lambda q, k, v: (q @ k.mT).softmax(-1),  # nothing is mixed
        lambda q, k, v: (q @ k.mT).relu() @ v,  # no softmax
        lambda q, k, v: nn.functional.layer_norm(q @ k.mT, (7,)).softmax(-1) @ v,  # a norm between
    ],
)
def test_lookalikes_are_no_cores(lookalike: Forward) -> None:
    assert cores(lookalike) == []
