"""A select of fused projections is a slice of what they were viewed from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from passes.frontend.selects import raise_selects
from tests.passes.sketch import Sketch

aten = torch.ops.aten


def raised(build: Any, *shape: int | str) -> tuple[fx.GraphModule, torch.Tensor, torch.Tensor]:
    """(the rewritten graph, what it computes, what the graph computed before)."""
    sketch = Sketch()
    module = sketch.done(build(sketch, sketch.input(*shape)))
    numbers = torch.randn([s if isinstance(s, int) else 5 for s in shape], dtype=torch.float64)
    before = module(numbers)[0]
    raise_selects(module.graph)
    module.graph.lint()
    module.recompile()
    return module, module(numbers)[0], before


def fused(sketch: Sketch, x: fx.Node) -> fx.Node:
    view = sketch.call(aten.reshape.default, x, [5, -1, 3, 2, 4])
    return sketch.call(aten.select.int, sketch.call(aten.permute.default, view, [2, 0, 3, 1, 4]), 0, 1)


def unflattened(sketch: Sketch, x: fx.Node) -> fx.Node:
    view = sketch.call(aten.unsqueeze.default, sketch.call(aten.unflatten.int, x, -1, [3, 8]), 0)
    return sketch.call(aten.select.int, sketch.call(aten.squeeze.dim, view, 0), 2, -1)


@pytest.mark.parametrize(("build", "start"), [(fused, 8), (unflattened, 16)])
def test_a_select_of_the_outermost_dim_becomes_a_slice(build: Any, start: int) -> None:
    module, found, before = raised(build, 5, 7, 24)
    assert torch.equal(found, before)
    (piece,) = [n for n in module.graph.nodes if n.target is aten.slice.Tensor]
    assert piece.args[1:] == (2, start, start + 8)
    assert not [n for n in module.graph.nodes if n.target is aten.select.int]


def inner(sketch: Sketch, x: fx.Node) -> fx.Node:
    return sketch.call(aten.select.int, sketch.call(aten.reshape.default, x, [5, -1, 3, 8]), 3, 1)


def data(sketch: Sketch, x: fx.Node) -> fx.Node:
    return sketch.call(aten.select.int, sketch.call(aten.reshape.default, x, [5, -1, 3, 8]), 0, 1)


@pytest.mark.parametrize("build", [inner, data])
def test_other_selects_stay(build: Any) -> None:
    module, found, before = raised(build, 5, "t", 24)
    assert torch.equal(found, before)
    assert [n for n in module.graph.nodes if n.target is aten.select.int]
