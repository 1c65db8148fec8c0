"""Metadata computed again: true shapes after a rewrite, the inputs' own symbols, complaints about sizes."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import passes
from passes.ir.graph import set_attribute
from passes.ir.metadata import fake_mode, propagate_metadata
from passes.ir.sizes import shape_of
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def test_shapes_follow_a_rewritten_weight_and_wrong_ones_raise() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    out = sketch.call(aten.linear.default, x, sketch.weight("w", matrix(4, 3)))
    module, batch = sketch.done(out), shape_of(x)[0]
    set_attribute(module, "w", nn.Parameter(matrix(2, 3)))
    propagate_metadata(module)
    assert shape_of(out)[1] == 2
    assert shape_of(out)[0].node.expr == batch.node.expr
    set_attribute(module, "w", nn.Parameter(matrix(2, 5)))
    with pytest.raises(RuntimeError):
        propagate_metadata(module)


def test_a_graph_without_metadata_is_refused() -> None:
    with pytest.raises(ValueError, match="carries no fake tensors"):
        fake_mode(fx.Graph())


def test_a_symbol_that_was_bound_to_a_number_does_not_come_back() -> None:
    """The input's width is a symbol that the linear fixes; a concatenation as wide as that may shrink."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(torch.cat([x, x.new_zeros(*x.shape[:2], 2)], -1))

    small = passes.shrink(passes.trace(Padded(), torch.randn(3, 5, 6)))
    assert small.plan.small_shape("down.weight", (3, 8)) == (3, 6)


def test_sizes_read_from_the_data_keep_their_symbols() -> None:
    """What the trace knows of them (their sum is no negative size) it knows of its own symbols only."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            first, second = counts.tolist()
            a, b = x.split([first, second])
            hidden = torch.cat([self.up(a).relu(), self.up(b).tanh()])
            chosen = torch.nonzero(a.sum() + x.sum(-1) > 0).squeeze(-1)
            return self.down(hidden + hidden.mean(0))[chosen]

    torch.manual_seed(0)
    model, mask = Experts().eval(), torch.ones(8, 6, dtype=torch.bool)
    mask[2:5] = False
    inputs = (torch.randn(5, 6), torch.tensor([2, 3]))
    bias = torch.ones(8, dtype=torch.bool)
    bias[2:5] = False
    result = passes.shrink(passes.trace(model, inputs), {"up.weight": mask, "up.bias": bias})
    assert result.plan.small_shape("down.weight", (6, 8)) == (6, 5)
    with torch.no_grad():
        model.up.weight.mul_(mask)
        model.up.bias.mul_(bias)
        for counts in ([2, 3], [4, 1]):
            want = model(inputs[0], torch.tensor(counts))
            got = result.graph_module(inputs[0], torch.tensor(counts))
            torch.testing.assert_close(got, want)
