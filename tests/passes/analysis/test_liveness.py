"""What outputs depend on: unread values have no live channel, numbers read from a value make all of it live."""

from __future__ import annotations

import torch

from tests.passes.sketch import Sketch, matrix, reader

aten = torch.ops.aten


def test_unread_values_are_dead_and_uses_add_up() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    unread = sketch.call(aten.relu.default, x)
    first, second = reader(sketch, x, [1.0, 0, 0]), reader(sketch, x, [0.0, 0, 1], "other")
    liveness = sketch.liveness(first, second)
    assert not bool(liveness.of(unread).any())
    assert liveness.of(x)[0].tolist() == [True, False, True]


def test_numbers_and_lists_taken_from_a_value_read_all_of_it_and_sizes_nothing() -> None:
    sketch = Sketch()
    x, y, z = (sketch.input("b", 3, name=n) for n in "xyz")
    total = sketch.call(aten.sum.default, sketch.call(aten.mul.Tensor, x, 1.0))
    sketch.graph.call_function(aten._local_scalar_dense.default, (total,))
    sketch.call(aten.sort.default, y)
    sketch.call(aten.sym_size.int, z, 0)
    liveness = sketch.liveness()
    assert bool(liveness.of(x).all())
    assert bool(liveness.of(y).all())
    assert not bool(liveness.of(z).any())


def test_masked_weights_stop_liveness() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    out = sketch.call(aten.linear.default, x, sketch.weight("w", matrix(2, 3)))
    mask = torch.tensor([[True, False, False], [False, False, True]])
    assert sketch.liveness(out, masks={"w": mask}).of(x)[0].tolist() == [True, False, True]
