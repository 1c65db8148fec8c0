"""restrict-width and narrow-width: golden texts, the same numbers, and nothing left to do a second time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from passes.analysis.width import Narrowing
from passes.frontend.trace import trace
from passes.ir.manager import PassManager
from passes.rewrite.apply_masks import ApplyMasks
from passes.rewrite.narrow_width import NarrowWidth, RestrictWidth
from passes.width import resolve_width, with_width
from tests.passes.golden_text import printed

KEPT = torch.tensor([1, 0, 1, 1]).bool()


class Stream(nn.Module):
    """A norm behind a norm, a norm written out, a mean, and an output along the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.first, self.second = nn.LayerNorm(4), nn.RMSNorm(4, elementwise_affine=False)
        self.up, self.down = nn.Linear(4, 3), nn.Linear(3, 4)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.second(self.first(self.embedding(ids)))
        x = x + self.down(torch.relu(self.up(x)))
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5), x.sum(-1)


@pytest.fixture
def masked() -> tuple[torch.fx.GraphModule, Narrowing]:
    torch.manual_seed(0)
    graph = trace(Stream().double(), (torch.arange(4).view(2, 2),))
    narrowing = resolve_width(graph, KEPT)
    assert narrowing is not None
    return PassManager((ApplyMasks(with_width(graph, {}, narrowing)),)).run(graph).graph_module, narrowing


def test_the_narrow_graph_computes_what_the_restricted_one_does(
    masked: tuple[torch.fx.GraphModule, Narrowing], golden: Callable[[str, str], None]
) -> None:
    graph, narrowing = masked
    meant, small = (PassManager((step(narrowing),)).run(graph) for step in (RestrictWidth, NarrowWidth))
    assert meant.modified
    assert small.modified
    golden("restrict_width", printed(meant.graph_module))
    golden("narrow_width", printed(small.graph_module))
    ids = torch.randint(0, 5, (3, 7))
    expected, actual = meant.graph_module(ids), small.graph_module(ids)
    assert expected[0].shape == (3, 7, 3)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)
    assert not torch.allclose(graph(ids)[0][..., KEPT], actual[0], atol=1e-2)


def test_what_is_narrow_is_not_narrowed_again(masked: tuple[torch.fx.GraphModule, Narrowing]) -> None:
    small = PassManager((NarrowWidth(masked[1]),)).run(masked[0]).graph_module
    assert resolve_width(small, torch.ones(3, dtype=torch.bool)) is None
    assert not NarrowWidth(Narrowing({}, ())).run(small).modified
