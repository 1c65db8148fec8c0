"""Values made of numbers: their fill is constant, counting is not, and nothing is read of what they are made like."""

from __future__ import annotations

import pytest
import torch

from passes.analysis.coupling.solver import collect_ties
from passes.ops.creation import fill_value
from passes.ops.facts import Axis, axis
from tests.passes.sketch import Sketch, keeps

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("target", "arguments", "number"),
    [
        (aten.full.default, ([2, 3], 2.5), 2.5),
        (aten.ones.default, ([2, 3],), 1),
        (aten.zeros.default, ([2, 3],), 0),
        (aten.full.default, ([2, 3], 2**40), 2**40),
    ],
)
def test_the_fill_is_constant(target: torch._ops.OpOverload, arguments: tuple[object, ...], number: float) -> None:
    sketch = Sketch()
    sketch.input("b", 3)
    made = sketch.call(target, *arguments)
    fact = sketch.constants(made).fact(made)
    assert fill_value(made) == number
    assert bool(fact.const.all())
    assert fact.value.unique().tolist() == [number]


def test_what_is_made_like_a_value_reads_nothing_of_it_and_keeps_its_dims() -> None:
    sketch = Sketch()
    x = sketch.free("b", 3)
    like, new = sketch.call(aten.ones_like.default, x), sketch.call(aten.new_zeros.default, x, [5])
    coupling = sketch.coupling({x: [False, True, False], new: [True] + [False] * 4})
    assert keeps(coupling, like, 1) == [False, True, False]
    assert keeps(coupling, new, 0) == [True] + [False] * 4
    sketch = Sketch()
    x = sketch.call(aten.relu.default, sketch.input("b", 3))
    liveness = sketch.liveness(sketch.call(aten.ones_like.default, x))
    assert not bool(liveness.of(x).any())


def test_counting_is_not_constant_and_keeps_its_length() -> None:
    sketch = Sketch()
    sketch.input("b", 3)
    count = sketch.call(aten.arange.start, 2, 6)
    constants = sketch.constants()
    assert not bool(constants.fact(count).const.any())
    ties = collect_ties(constants)
    assert ties.pins == {axis(count, 0): "created by counting"} | {Axis("x", 1): "an input of the model"}
