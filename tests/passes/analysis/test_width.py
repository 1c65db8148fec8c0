"""What lies along one axis, what sums over it, and what keeps it from being narrowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx

from passes.analysis.width import Widths
from passes.ops.facts import Axis
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def stream(sketch: Sketch) -> fx.Node:
    """Six channels that a matrix writes."""
    return sketch.call(aten.linear.default, sketch.input("b", "t", 3), sketch.weight("w", matrix(6, 3)))


def widths(sketch: Sketch, *outputs: fx.Node) -> Widths:
    return Widths(sketch.done(*outputs))


WRITTEN = Axis("@w", 0)


def test_norms_means_and_outputs_are_sums_along_the_axis() -> None:
    sketch = Sketch()
    x = stream(sketch)
    norm = sketch.call(aten.layer_norm.default, x, [6], sketch.weight("scale", torch.ones(6).double()))
    mean = sketch.call(aten.mean.dim, norm, [-1], True)
    read = sketch.call(aten.linear.default, norm, sketch.weight("r", matrix(2, 6)))
    found = widths(sketch, norm, mean, read)
    shared = found.of(WRITTEN)
    assert shared is not None
    assert (shared.size, shared.refusal) == (6, None)
    assert shared.parameters == {"w": (0,), "scale": (0,), "r": (1,)}
    narrowing = found.narrowing([(shared, torch.arange(6) < 4)])
    assert set(narrowing.sums) == {(norm.name, x.name, 2), (mean.name, norm.name, 2), ("output", norm.name, 2)}
    assert narrowing.count(x, 2) == 4
    assert narrowing.count(read, 2) is narrowing.count(x, 0) is None
    assert found.of(Axis("@unknown", 0)) is None


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        (lambda s, x: s.call(aten.argmax.default, x, -1), "reduced by argmax"),
        (lambda s, x: s.call(aten.softmax.int, x, -1), "mixed by softmax"),
        (lambda s, x: s.call(aten.view.default, x, [5, 7, 2, 3]), "viewed as heads"),
        (lambda s, x: s.call(aten.slice.Tensor, x, 2, 0, 3), "sliced"),
        (lambda s, x: s.call(aten.cat.default, [x, x], 2), "concatenated"),
        (lambda s, x: s.call(aten.matmul.default, x, s.call(aten.transpose.int, x, 1, 2)), "two computed values"),
        (lambda s, x: s.call(aten.add.Tensor, x, s.input("b", "t", 6, name="y")), "an input of the model"),
    ],
)
def test_what_keeps_an_axis_whole(reader: Callable[[Sketch, fx.Node], fx.Node], reason: str) -> None:
    sketch = Sketch()
    shared = widths(sketch, reader(sketch, stream(sketch))).of(WRITTEN)
    assert shared is not None
    assert shared.refusal is not None
    assert reason in shared.refusal
