"""Sizes of values, and the groups of a reshape: also where sizes are symbols."""

from __future__ import annotations

import torch

from passes.ir.sizes import carrying_inputs, reshape_groups, same_sizes, shape_of, tensor_of
from tests.passes.sketch import Sketch

aten = torch.ops.aten


def groups(before: tuple[object, ...], after: tuple[object, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(group.inputs, group.outputs) for group in reshape_groups(before, after)]


def test_reshapes_factor_into_the_smallest_groups() -> None:
    assert groups((2, 12), (2, 3, 4)) == [((0,), (0,)), ((1,), (1, 2))]
    assert groups((2, 3, 4), (6, 4)) == [((0, 1), (0,)), ((2,), (1,))]
    assert groups((2, 6), (4, 3)) == [((0, 1), (0, 1))]
    assert groups((1, 5), (5, 1, 1)) == [((1,), (0,))]  # sizes of 1 belong to no group


def test_beside_a_size_of_0_other_sizes_go_with_it() -> None:
    assert groups((0, 6), (0,)) == [((0, 1), (0,))]
    assert groups((0,), (0, 3)) == [((0,), (0, 1))]
    assert groups((0, 6), (0, 0)) == [((0, 1), (0, 1))]
    assert groups((5, 0, 8), (5, 0, 2, 4)) == [((0,), (0,)), ((1,), (1,)), ((2,), (2, 3))]


def test_symbols_are_told_apart() -> None:
    b, t = shape_of(Sketch().input("b", "t"))
    assert groups((b, t, 12), (b * t, 3, 4)) == [((0, 1), (0,)), ((2,), (1, 2))]
    assert groups((b * 4, t, 8), (b, 4, t, 8)) == [((0,), (0, 1)), ((1,), (2,)), ((2,), (3,))]
    assert groups((b, t), (t, b)) == [((0, 1), (0, 1))]


def test_sizes_are_equal_as_numbers_or_as_expressions() -> None:
    b, t = shape_of(Sketch().input("b", "t"))
    assert same_sizes((b, 3), (b, 3))
    assert not same_sizes((b,), (t,))
    assert not same_sizes((b,), (5,))  # the example's size is a coincidence
    assert not same_sizes((3,), (3, 3))


def test_lists_of_results_are_carried_and_numbers_are_not() -> None:
    sketch = Sketch()
    x = sketch.input("b", 4)
    pair = sketch.call(aten.sort.default, x)
    size = sketch.call(aten.sym_size.int, x, 0)
    made = sketch.call(aten.full.default, [size], 1.0)
    assert (tensor_of(pair), carrying_inputs(pair), carrying_inputs(made)) == (None, [x], [])
