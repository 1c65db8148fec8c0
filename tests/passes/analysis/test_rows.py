"""Around a softmax: whose rows sum to 1, and what a shift of a whole row passes through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from passes.analysis.rows import row_stochastic_nodes, shift_invariant
from tests.passes.sketch import Sketch

aten = torch.ops.aten


def test_rows_sum_to_1_through_what_leaves_them_whole() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2, 3, 4)
    rows = sketch.call(aten.softmax.int, x, -1)
    cast = sketch.call(aten.to.dtype, rows, torch.float32)
    view = sketch.call(aten.reshape.default, cast, [-1, 6, 4])
    flat = sketch.call(aten.reshape.default, cast, [-1, 12])
    whole, other = sketch.call(aten.to.dtype, rows, torch.int64), sketch.call(aten.softmax.int, x, 1)
    found = row_stochastic_nodes(sketch.graph)
    assert found == {rows, cast, view}
    assert found.isdisjoint({flat, whole, other})


def scores(sketch: Sketch, x: fx.Node, how: str) -> fx.Node:
    mask, row = sketch.input("b", 3, 4, dtype=torch.bool, name="mask"), sketch.input("b", 3, 4, name="row")
    steps: dict[str, Any] = {
        "scaled": lambda: sketch.call(aten.mul.Tensor, x, 0.5),
        "per row": lambda: sketch.call(aten.mul.Tensor, x, sketch.input("b", 3, 1, name="scale")),
        "shifted": lambda: sketch.call(aten.add.Tensor, x, row),
        "hidden": lambda: sketch.call(aten.masked_fill.Scalar, x, mask, -1e9),
        "cast": lambda: sketch.call(aten.to.dtype, x, torch.float32),
        "scaled unevenly": lambda: sketch.call(aten.mul.Tensor, x, row),
        "filled with 0": lambda: sketch.call(aten.masked_fill.Scalar, x, mask, 0.0),
        "rectified": lambda: sketch.call(aten.relu.default, x),
        "rounded": lambda: sketch.call(aten.to.dtype, x, torch.int64),
        "divides": lambda: sketch.call(aten.div.Tensor, row, x),
    }
    return steps[how]()


@pytest.mark.parametrize("how", ["scaled", "per row", "shifted", "hidden", "cast"])
def test_a_shift_goes_through(how: str) -> None:
    sketch = Sketch()
    x = sketch.input("b", 3, 4)
    sketch.call(aten.softmax.int, scores(sketch, x, how), -1)
    assert shift_invariant(x)


@pytest.mark.parametrize("how", ["scaled unevenly", "filled with 0", "rectified", "divides"])
def test_a_shift_does_not_go_through(how: str) -> None:
    sketch = Sketch()
    x = sketch.input("b", 3, 4)
    sketch.call(aten.softmax.int, scores(sketch, x, how), -1)
    assert not shift_invariant(x)


def test_a_softmax_over_another_dim_or_another_reader_minds() -> None:
    sketch = Sketch()
    x, y, z = (sketch.input("b", 3, 4, name=n) for n in "xyz")
    sketch.call(aten.softmax.int, x, 1)
    sketch.call(aten.softmax.int, y, -1)
    sketch.call(aten.sym_size.int, y, 0)
    assert not shift_invariant(x)
    assert shift_invariant(y)  # a size is no number
    sketch.call(aten.relu.default, y)
    assert not shift_invariant(y)
    assert not shift_invariant(z)  # nobody reads it: nothing is known
