"""canonicalise: splits become slices (golden text), data splits stay, twice is once, and numbers are preserved."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

import passes
from passes.frontend.canonical import canonicalise
from passes.frontend.trace import trace
from tests.passes.golden_text import printed

aten = torch.ops.aten


class Splits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, 4)
        q, k, v = self.linear(x).split([4, 4, 4], dim=-1)
        gate, up = v.chunk(2, dim=-1)  # (B, T, 2)
        one, two = k.view(x.shape[0], x.shape[1], 2, 2).unbind(2)
        return torch.cat([q, gate * up, one + two], -1)


class DataSplit(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=1)
        return first.sum() + second.sum()


def targets(graph: fx.Graph) -> set[object]:
    return {node.target for node in graph.nodes}


def test_splits_of_channels_become_slices(golden: Callable[[str, str], None]) -> None:
    graph = trace(Splits(), torch.randn(2, 3, 4))
    assert not targets(graph.graph) & {aten.split_with_sizes.default, aten.chunk.default, aten.view.default}
    golden("canonicalise", printed(graph))


def test_splits_of_data_stay() -> None:
    graph = trace(DataSplit(), torch.randn(2, 6, 4))
    assert targets(graph.graph) & {aten.chunk.default, aten.split.Tensor}


def test_canonical_graphs_do_not_change() -> None:
    graph = trace(Splits(), torch.randn(2, 3, 4))
    before = printed(graph)
    canonicalise(graph)
    assert printed(graph) == before


def test_numbers_are_preserved() -> None:
    model, x = Splits(), torch.randn(3, 5, 4)
    torch.testing.assert_close(trace(model, torch.randn(2, 3, 4))(x), model(x), rtol=0, atol=0)


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, 4)
        return self.down(self.up(x).unsqueeze(2).squeeze().squeeze(-1))


def test_a_dim_that_shrinks_to_one_index_is_not_squeezed_away() -> None:
    model, x = Squeezed().double(), torch.randn(3, 5, 4, dtype=torch.float64)
    one = torch.zeros(6, 4, dtype=torch.bool)
    one[2] = True
    masks = {"up.weight": one, "up.bias": one.any(1)}
    small = passes.shrink(trace(model, x), masks, verify=False)
    model.up.weight.data *= one
    model.up.bias.data *= one.any(1)
    torch.testing.assert_close(small.graph_module(x), model(x), rtol=0, atol=1e-12)
    assert small.plan.small_shape("up.weight", (6, 4)) == (1, 4)
