"""Arguments by name: positions, keywords and defaults look alike, and writing goes where the argument stands."""

from __future__ import annotations

import pytest
import torch

from passes.ops.arguments import argument, first_argument, set_argument, tensor_argument
from tests.passes.sketch import Sketch

aten = torch.ops.aten


def test_positions_keywords_and_defaults_are_read_alike() -> None:
    sketch = Sketch()
    x = sketch.input("b", 4)
    by_position, by_keyword = sketch.call(aten.softmax.int, x, -1), sketch.call(aten.softmax.int, x, dim=-1)
    all_named = sketch.graph.call_function(aten.softmax.int, (), {"self": x, "dim": -1})
    for node in (by_position, by_keyword, all_named):
        assert (argument(node, "dim"), first_argument(node), tensor_argument(node, "self")) == (-1, x, x)
        assert (argument(node, "dtype"), argument(node, "nonsense")) == (None, None)
    assert argument(sketch.call(aten.add.Tensor, x, x), "alpha") == 1
    assert tensor_argument(sketch.call(aten.add.Tensor, x, 2.0), "other") is None  # a number is no value


def test_writing_goes_where_the_argument_stands() -> None:
    sketch = Sketch()
    x = sketch.input("b", 4)
    node = sketch.call(aten.slice.Tensor, x, 1, end=3)
    set_argument(node, "dim", 0)
    set_argument(node, "end", 2)
    set_argument(node, "step", 2)
    assert node.args == (x, 0)
    assert node.kwargs == {"end": 2, "step": 2}
    placed = sketch.call(aten.slice.Tensor, x, 1, 0, 3)
    set_argument(placed, "dim", 0)
    assert placed.args == (x, 0, 0, 3)
    named = sketch.call(aten.slice.Tensor, x, dim=1)
    set_argument(named, "dim", 0)
    assert (named.args, named.kwargs) == ((x,), {"dim": 0})


def test_an_argument_the_operator_does_not_have_is_refused() -> None:
    sketch = Sketch()
    node = sketch.call(aten.relu.default, sketch.input("b", 4))
    with pytest.raises(ValueError, match=r"aten\.relu\.default has no parameter 'dim'"):
        set_argument(node, "dim", 0)
