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
