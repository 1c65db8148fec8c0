"""Relations between axes: views become grids, tables cover, broadcast operands share, and sizes must agree."""

from __future__ import annotations

import pytest
import torch

from passes.ops.facts import Axis
from passes.ops.ties import Ties
from tests.passes.sketch import Sketch, keeps, matrix, reason, tied

aten = torch.ops.aten
T, F = True, False


def test_views_keep_outer_products() -> None:
    sketch = Sketch()
    x = sketch.free("b", 6)
    heads = sketch.call(aten.reshape.default, x, [-1, 2, 3])
    coupling = sketch.coupling({x: [F, T, F, F, F, F], heads: [[F, F, F], [F, F, T]]})
    assert keeps(coupling, heads, 1) == [T, T]
    assert keeps(coupling, heads, 2) == [F, T, T]
    assert keeps(coupling, x, 1) == [F, T, T, F, T, T]


def test_a_view_of_several_dims_as_several_goes_through_a_flat_axis() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 6)
    other = sketch.call(aten.reshape.default, x, [-1, 4, 3])
    coupling = sketch.coupling({other: [[F, F, F], [F, T, F], [F, F, F], [F, F, F]]})
    assert keeps(coupling, x, 1) == [T, F]
    assert keeps(coupling, x, 2) == [F, F, F, F, T, F]


def test_a_view_that_mixes_channels_with_data_keeps_them() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 3)
    sketch.call(aten.reshape.default, x, [-1, 3])
    coupling = sketch.coupling({})
    assert reason(coupling, x, 1) == "a view mixes it with a data dimension"
    assert reason(coupling, x, 2) is None


def test_a_table_that_others_read_covers_in_every_dim_and_one_that_is_read_here_is_cut() -> None:
    """The shared table keeps what both of its users need; a bias of one's own goes with what it is added to."""
    sketch = Sketch()
    first, second = sketch.free("b", 2, 3), sketch.free("b", 2, 3, name="second")
    a, b = (
        sketch.call(aten.linear.default, x, sketch.weight(f"w{i}", matrix(3, 3))) for i, x in enumerate((first, second))
    )
    table = sketch.weight("table", matrix(2, 3))
    own = sketch.weight("own", matrix(1, 3)[0])
    left, right = sketch.call(aten.add.Tensor, a, table), sketch.call(aten.add.Tensor, b, table)
    biased = sketch.call(aten.add.Tensor, left, own)
    coupling = sketch.coupling({left: [[T, F, F], [F, F, F]], right: [[F, F, F], [F, F, T]]})
    covers = {(c.operand, c.dim, c.node) for c in coupling.ties.covers}
    assert covers == {(table, d, node) for d in (0, 1) for node in (left, right)}
    assert keeps(coupling, table, 0) == [T, T]
    assert keeps(coupling, table, 1) == [T, F, T]
    assert keeps(coupling, left, 2) == keeps(coupling, own, 0) == [T, F, F]
    assert keeps(coupling, right, 2) == [F, F, T]
    assert tied(coupling, (biased, 2), (own, 0))


def test_repeated_heads_are_a_relation_of_their_own() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 3)
    wide = sketch.call(aten.expand.default, sketch.call(aten.unsqueeze.default, x, 2), [-1, -1, 4, -1])
    out = sketch.call(aten.reshape.default, wide, [-1, 8, 3])
    coupling = sketch.coupling({out: torch.tensor([F, F, F, F, F, T, F, F])[:, None]})
    (repeat,) = coupling.ties.repeats
    assert (repeat.group, repeat.dim, repeat.copies) == (4, 1, Axis(wide.name, 2))
    assert keeps(coupling, x, 1) == [F, T]
    assert keeps(coupling, out, 1) == [F, F, F, F, F, T, F, F]


def test_axes_of_different_size_are_never_the_same() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", 2), sketch.input("b", 3, name="y")
    ties = Ties(frozenset())
    with pytest.raises(AssertionError, match=r"axes of different size tied: x\[1\] 2, y\[1\] 3"):
        ties.same(ties.axis(x, 1), ties.axis(y, 1))
    ties.same(ties.axis(x, 0), ties.axis(y, 1))  # data is no axis


def test_what_is_mentioned_is_told_once() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2, 3)
    ties = Ties(frozenset())
    ties.pin(x, [1], "first")
    ties.pin(x, None, "second")
    assert ties.mentioned() == {Axis("x", 1), Axis("x", 2)}
    assert ties.mentioned() == set()
    assert ties.pins == {Axis("x", 1): "first", Axis("x", 2): "second"}
