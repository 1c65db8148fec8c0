"""drop-noop-slices: it fires (golden text), refuses, is idempotent, and preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.rewrite.drop_noop_slices import DropNoopSlices, reads_all
from tests.passes.golden_text import printed
from tests.passes.sketch import Sketch


class Slices(nn.Module):
    """A full range on each kind of dimension, and three that read a part."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)[:, :, 0:4] * mask[:, :, None]
        return y + y[:, :2].sum() + y[:, :, 1:].sum() + y[:, :, ::2].mean()


@pytest.fixture
def graph() -> torch.fx.GraphModule:
    torch.manual_seed(0)
    return trace(Slices(), (torch.randn(2, 5, 4), torch.ones(2, 5)))


def test_slices_of_everything_go_and_others_stay(
    graph: torch.fx.GraphModule, golden: Callable[[str, str], None]
) -> None:
    result = DropNoopSlices().run(graph)
    assert result.modified
    slices = [n for n in result.graph_module.graph.nodes if n.target is torch.ops.aten.slice.Tensor]
    assert len(slices) == 3
    assert not any(reads_all(node) for node in slices)
    assert result.graph_module.code.count("slice.Tensor(") == 3
    golden("drop_noop_slices", printed(result.graph_module))


@pytest.mark.parametrize(("end", "whole"), [(2, False), (3, True), (4, True)])
def test_a_literal_end_is_the_end_or_past_it(end: int, whole: bool) -> None:
    sketch = Sketch()
    assert reads_all(sketch.call(torch.ops.aten.slice.Tensor, sketch.input("b", 3), 1, 0, end)) is whole


def test_dropping_again_changes_nothing(graph: torch.fx.GraphModule) -> None:
    assert not DropNoopSlices().run(DropNoopSlices().run(graph).graph_module).modified


def test_it_preserves_numbers(graph: torch.fx.GraphModule) -> None:
    inputs = torch.randn(3, 7, 4), torch.rand(3, 7)
    small = DropNoopSlices().run(graph).graph_module
    torch.testing.assert_close(small(*inputs), graph(*inputs), rtol=0, atol=0)
