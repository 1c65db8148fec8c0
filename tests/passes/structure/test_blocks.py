"""Blocks: head shapes by part, and which chains of linears are feed-forward networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from passes.frontend.trace import trace
from passes.structure.blocks import Block, feed_forward_block
from passes.structure.reach import reach
from passes.structure.role import Family, Part, Role
from passes.structure.weight_uses import weight_uses


@pytest.mark.parametrize(
    ("role", "out_features", "in_features", "expected"),
    [
        (Role.ATTENTION_QUERY, 32, 20, (4, 8)),
        (Role.ATTENTION_KEY, 16, 20, (2, 8)),  # grouped
        (Role.ATTENTION_VALUE, 24, 20, (4, 6)),
        (Role.ATTENTION_OUTPUT, 20, 24, (4, 6)),
        (Role.ATTENTION_QK, 64, 20, (4, 8)),
        (Role.ATTENTION_KV, 56, 20, (None, None)),  # heads of two sizes
        (Role.ATTENTION_QUERY, 33, 20, (None, None)),
        (Role.OTHER, 32, 32, (None, None)),
    ],
)
def test_head_shapes(role: Role, out_features: int, in_features: int, expected: tuple[int | None, int | None]) -> None:
    block = Block("attention.0", Family.ATTENTION, {}, (), head_dim=8, value_dim=6, heads=4)
    assert block.head_shape(role, out_features, in_features) == expected


def test_operands_that_share_a_weight_are_fused_and_others_have_no_role() -> None:
    block = Block("attention.0", Family.ATTENTION, {}, ())
    assert block.role({Part.KEY, Part.VALUE}) is Role.ATTENTION_KV
    assert block.role({Part.QUERY, Part.OUTPUT}) is Role.OTHER


class Net(nn.Module):
    def __init__(self, forward: Callable[[Net, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)
        self.both, self.body = nn.Linear(4, 12), forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x.sin())


def halves(both: torch.Tensor, gate: slice, up: slice) -> torch.Tensor:
    return both[:, gate].relu() * both[:, up]


def built(forward: Callable[[Net, torch.Tensor], torch.Tensor], taken: str | None = None) -> Block | None:
    """The block that ends in ``down``; the linear of the weight ``taken`` counts as an attention's."""
    graph_module = trace(Net(forward), torch.randn(2, 4), dynamic=False)
    uses = weight_uses(graph_module)
    by_weight: dict[str, fx.Node] = {use.weight: node for node, use in uses.items()}
    sources = reach(graph_module.graph, uses, through_norms=False)
    others = {by_weight[taken]} if taken else set()
    return feed_forward_block(0, by_weight["down.weight"], sources, uses, others)


@pytest.mark.parametrize(
    ("forward", "name", "parts", "tiles"),
    [
        (lambda m, x: x + m.down(m.up(x).relu()), "ffn.0", {"up", "down"}, 1),
        (lambda m, x: m.down(m.up(x).relu()), "mlp.0", {"up", "down"}, 1),
        (lambda m, x: x + m.down(m.gate(x).sigmoid() * m.up(x)), "ffn.0", {"gate", "up", "down"}, 1),
        (lambda m, x: x + m.down(halves(m.both(x), slice(6), slice(6, 12))), "ffn.0", {"gate_up", "down"}, 2),
        (lambda m, x: x + m.down(nn.functional.glu(m.both(x))), "ffn.0", {"gate_up", "down"}, 2),
        (lambda m, x: x + m.down(halves(m.both(x), slice(0, 12, 2), slice(1, 12, 2))), "ffn.0", {"gate_up", "down"}, 1),
    ],
)
def test_feed_forward_networks(
    forward: Callable[[Net, torch.Tensor], torch.Tensor], name: str, parts: set[str], tiles: int
) -> None:
    block = built(forward)
    assert block is not None
    assert (block.name, set(block.parts), block.tiles) == (name, parts, tiles)


@pytest.mark.parametrize(
    "lookalike",
    [
        lambda m, x: x + m.down(m.up(x)),  # no activation
        lambda m, x: x + m.down(m.gate(x).sigmoid() * m.up(x).tanh()),  # two activated
        lambda m, x: x + m.down((m.up(x) + m.gate(x)).relu()),  # a sum of two is neither
    ],
)
def test_lookalikes_are_no_feed_forward_networks(lookalike: Callable[[Net, torch.Tensor], torch.Tensor]) -> None:
    assert built(lookalike) is None


def test_linears_of_attentions_are_not_taken_again() -> None:
    assert built(lambda m, x: x + m.down(m.up(x).relu()), taken="up.weight") is None
