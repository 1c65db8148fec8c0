"""Relations between axes: views become grids, tables cover, broadcast operands share, and sizes must agree."""

from __future__ import annotations

import pytest
import torch

from passes.ops.facts import Axis, axis
from passes.ops.ties import Part, Ties
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
    rows = sketch.call(aten.reshape.default, x, [-1, 3])
    pairs = sketch.call(aten.reshape.default, y := sketch.free("b", 4, 3, name="y"), [-1, 2, 3])
    coupling = sketch.coupling({})
    assert reason(coupling, x, 1) == "a view mixes it with a data dimension"
    assert reason(coupling, x, 2) is None
    assert tied(coupling, (x, 2), (rows, 1))
    assert reason(coupling, y, 1) == reason(coupling, pairs, 1) == "a view mixes it with a data dimension"


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


@pytest.mark.parametrize(
    ("before", "wide", "after"),
    [
        (("b", 2, 1, 1), [-1, -1, 1, 4], [-1, 8]),  # copies that do not lie beside the heads
        ((4, 1), [3, 4, 2], [3, 8]),  # a dim that the expansion adds: the heads are another dim of the source
        (("b", 1, 1), [-1, 2, 4], [-1, 8]),  # the heads are copies themselves
        (("b", 2, 4), [-1, -1, -1], [-1, 8]),  # no copies
    ],
)
def test_other_expansions_are_plain_views(before: tuple[int | str, ...], wide: list[int], after: list[int]) -> None:
    sketch = Sketch()
    sketch.input("b", name="first")
    x = sketch.free(*before)
    out = sketch.call(aten.reshape.default, sketch.call(aten.expand.default, x, wide), after)
    coupling = sketch.coupling({})
    assert coupling.ties.repeats == []
    assert axis(out, 1) in {grid.flat for grid in coupling.ties.grids}


def test_parts_free_values_and_virtual_axes_are_known() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", 3), sketch.input("b", 1, 4, name="y")
    ties = Ties(frozenset())
    ties.free(y)
    assert ties.mentioned() == {Axis("y", 2)}
    whole, part, index = ties.axis(x, 1), ties.virtual(2), torch.tensor([0, 2])
    assert part != ties.virtual(2)
    ties.part(whole, part, index)
    ties.part(None, part, index)
    assert ties.mentioned() == {whole, part}
    assert ties.parts == [Part(Axis("x", 1), part, index)]


def test_a_cover_is_for_tables_and_channels_alone() -> None:
    sketch = Sketch()
    x, table, computed = sketch.input(4, 2, 3), sketch.input(1, 2, 3, name="table"), sketch.input(2, 3, name="y")
    ties = Ties(frozenset({table}))
    ties.cover(x, table, range(-3, 0))
    ties.cover(x, computed, [-2, -1])
    assert [(c.table, c.user, c.operand, c.dim) for c in ties.covers] == [
        (Axis("table", 1), Axis("x", 1), table, 1),
        (Axis("table", 2), Axis("x", 2), table, 2),
    ]
    same = {frozenset(pair) for pair in ties.graph.edges}
    assert same == {frozenset((Axis("y", d), Axis("x", d + 1))) for d in (0, 1)}


def test_a_shared_table_covers_no_dim_along_which_it_is_broadcast() -> None:
    sketch = Sketch()
    x = sketch.call(aten.linear.default, sketch.free("b", 2, 3), sketch.weight("w", matrix(3, 3)))
    table = sketch.weight("table", matrix(1, 3))
    out, _ = sketch.call(aten.add.Tensor, x, table), sketch.call(aten.mul.Tensor, x, table)
    coupling = sketch.coupling({out: [[F, T, F], [F, F, F]]})
    assert {(c.table, c.dim) for c in coupling.ties.covers} == {(Axis("@table", 1), 1)}
    assert keeps(coupling, table, 1) == [F, T, F]


def test_a_piece_of_a_packed_bias_is_cut_unless_others_read_it() -> None:
    sketch = Sketch()
    x = sketch.call(aten.linear.default, sketch.free("b", 3), sketch.weight("w", matrix(2, 3)))
    packed = sketch.weight("packed", [0.0] * 6)
    own, shared = (sketch.call(aten.slice.Tensor, packed, 0, n, n + 2) for n in (0, 2))
    one = sketch.call(aten.add.Tensor, x, own)
    two, three = sketch.call(aten.add.Tensor, x, shared), sketch.call(aten.mul.Tensor, x, shared)
    read, sliced = sketch.weight("read", [0.0] * 4), sketch.call(aten.neg.default, sketch.weight("n", [0.0] * 2))
    piece = sketch.call(aten.slice.Tensor, read, 0, 0, 2)
    sketch.call(aten.exp.default, read)
    four, five = sketch.call(aten.add.Tensor, x, piece), sketch.call(aten.add.Tensor, x, sliced)
    covered = {(c.operand, c.node) for c in sketch.coupling({}).ties.covers}
    assert covered == {(shared, two), (shared, three), (piece, four), (sliced, five)}
    assert (own, one) not in covered
