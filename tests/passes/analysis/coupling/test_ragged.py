"""Heads with dims of their own: (H, D) <-> F where that keeps fewer, and all that forbids it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx

from passes.analysis.coupling.ragged import make_ragged, solve_again
from passes.analysis.coupling.solver import Coupling, couple
from passes.analysis.keep import keep_something
from passes.analysis.liveness import Liveness
from tests.passes.sketch import Sketch, keeps, matrix

aten = torch.ops.aten
T, F = True, False
LINEAR, RESHAPE = aten.linear.default, aten.reshape.default


class Heads:
    """x -> w (2 heads of 3 dims) -> heads -> relu -> flat -> down, which reads dim 0 of head 0 and dim 1 of head 1."""

    def __init__(self, reads: object = ((1, 0, 0), (0, 1, 0))) -> None:
        self.sketch = Sketch()
        self.wide = self.sketch.call(LINEAR, self.sketch.input("b", 4), self.sketch.weight("w", matrix(6, 4)))
        self.heads = self.sketch.call(RESHAPE, self.wide, [-1, 2, 3])
        self.mixed = self.sketch.call(aten.relu.default, self.heads)
        self.flat = self.sketch.call(RESHAPE, self.mixed, [-1, 6])
        self.outputs = [self.reader(self.flat, reads, "down")]

    def reader(self, flat: fx.Node, reads: object, name: str) -> fx.Node:
        columns = torch.tensor(reads).double().flatten()
        return self.sketch.call(LINEAR, flat, self.sketch.weight(name, matrix(2, len(columns)) * columns))

    def ragged(self) -> Coupling:
        liveness = Liveness(self.sketch.constants(*self.outputs))
        coupling = couple(liveness.constants, liveness)
        make_ragged(coupling, liveness)
        return coupling

    def rows(self) -> list[list[bool]] | None:
        """The dims of every head; None where all heads keep the same."""
        coupling = self.ragged()
        return next(iter(coupling.rows.values())).tolist() if coupling.rows else None


def test_every_head_keeps_its_own_dims_and_the_flat_axis_follows() -> None:
    given = Heads()
    coupling = given.ragged()
    (rows,) = coupling.rows.values()
    assert rows.tolist() == [[T, F, F], [F, T, F]]
    for value in (given.wide, given.flat):
        assert keeps(coupling, value, 1) == [T, F, F, F, T, F]
    assert coupling.count(given.heads, 2) == 1


def test_the_smaller_heads_are_padded_with_their_first_dead_dims() -> None:
    assert Heads([[0, 1, 1], [0, 0, 1]]).rows() is None  # dims 1 and 2 are all that any head keeps
    assert Heads([[1, 0, 1], [0, 1, 0]]).rows() == [[T, F, T], [T, T, F]]


def test_dead_heads_keep_nothing_and_where_all_are_dead_nothing_is_ragged() -> None:
    given = Heads([[0, 0, 0], [0, 1, 0]])
    coupling = given.ragged()
    assert coupling.rows == {}
    assert keeps(coupling, given.wide, 1) == [F, F, F, F, T, F]
    assert Heads([[0, 0, 0], [0, 0, 0]]).rows() is None


def test_a_dead_head_has_no_say_among_ragged_ones() -> None:
    sketch = Sketch()
    wide = sketch.call(LINEAR, sketch.input("b", 4), sketch.weight("w", matrix(9, 4)))
    heads = sketch.call(aten.relu.default, sketch.call(RESHAPE, wide, [-1, 3, 3]))
    reads = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 1]]).double().flatten()
    out = sketch.call(LINEAR, sketch.call(RESHAPE, heads, [-1, 9]), sketch.weight("down", matrix(2, 9) * reads))
    liveness = Liveness(sketch.constants(out))
    coupling = couple(liveness.constants, liveness)
    make_ragged(coupling, liveness)
    assert keeps(coupling, wide, 1) == [F, F, F, T, T, F, F, T, T]


def test_every_value_on_the_way_counts() -> None:
    """What the wide value is read for beside the heads, and what the heads are read for beside the flat one."""
    given = Heads()
    given.outputs.append(given.reader(given.wide, [[0, 0, 1], [0, 0, 0]], "beside"))
    assert given.rows() == [[T, F, T], [T, T, F]]


def test_positions_differ_in_what_they_read() -> None:
    sketch = Sketch()
    wide = sketch.call(LINEAR, sketch.input("b", 2, 4), sketch.weight("w", matrix(6, 4)))
    heads = sketch.call(aten.relu.default, sketch.call(RESHAPE, wide, [-1, 2, 2, 3]))
    flat = sketch.call(RESHAPE, heads, [-1, 2, 6])
    keep = sketch.weight("keep", [[1.0, 0, 0, 0, 1, 0], [1.0, 0, 0, 0, 0, 1]])
    out = sketch.call(LINEAR, sketch.call(aten.mul.Tensor, flat, keep), sketch.weight("down", matrix(2, 6)))
    liveness = Liveness(sketch.constants(out))
    coupling = couple(liveness.constants, liveness)
    make_ragged(coupling, liveness)
    assert [rows.tolist() for rows in coupling.rows.values()] == [[[T, T, F], [F, T, T]]]


def read_size(given: Heads) -> None:
    given.sketch.call(aten.sym_size.int, given.heads, 2)


def softmax(given: Heads) -> None:
    given.outputs.append(given.sketch.call(aten.softmax.int, given.heads, 2))


def one_head(given: Heads) -> None:
    picked = given.sketch.call(aten.select.int, given.mixed, 1, 0)
    given.outputs.append(given.reader(picked, [1, 0, 0], "one"))


def summed_heads(given: Heads) -> None:
    total = given.sketch.call(aten.sum.dim_IntList, given.mixed, [1])
    given.outputs.append(given.reader(total, [1, 1, 0], "one"))


def turned(given: Heads) -> None:
    """Dims have places where they are rotated into each other."""
    back = given.sketch.call(aten.flip.default, given.mixed, [2])
    given.outputs.append(given.reader(given.sketch.call(RESHAPE, back, [-1, 6]), [[0, 0, 1], [0, 1, 0]], "one"))


def shared_table(given: Heads) -> None:
    """A table over the dims, which all heads read."""
    table = given.sketch.weight("table", [1.0, 2.0, 3.0])
    given.outputs.append(given.sketch.call(aten.mul.Tensor, given.heads, table))
    given.outputs.append(given.sketch.call(aten.sum.dim_IntList, given.outputs.pop(), [1, 2]))


def table_read_twice(given: Heads) -> None:
    table = given.sketch.weight("table", [1.0, 2.0, 3.0])
    scaled = [given.sketch.call(aten.mul.Tensor, n, table) for n in (given.heads, given.mixed)]
    for n, value in enumerate(scaled):
        flat = given.sketch.call(RESHAPE, value, [-1, 6])
        given.outputs.append(given.reader(flat, [[1, 0, 0], [0, 1, 0]], f"read{n}"))


def flat_table_read_twice(given: Heads) -> None:
    table = given.sketch.weight("table", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    for n, value in enumerate((given.wide, given.flat)):
        scaled = given.sketch.call(aten.mul.Tensor, value, table)
        given.outputs.append(given.reader(scaled, [[1, 0, 0], [0, 1, 0]], f"read{n}"))


def repeated_dims(given: Heads) -> None:
    wide = given.sketch.call(aten.repeat_interleave.self_int, given.mixed, 2, 2)
    flat = given.sketch.call(RESHAPE, wide, [-1, 12])
    given.outputs.append(given.reader(flat, [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]], "one"))


def view_of_three(given: Heads) -> None:
    """The dims of two times the same heads."""
    wide = given.sketch.call(LINEAR, given.sketch.input("b", 4, name="y"), given.sketch.weight("v", matrix(12, 4)))
    other = given.sketch.call(RESHAPE, wide, [-1, 2, 2, 3])
    scaled = given.sketch.call(aten.mul.Tensor, other, given.sketch.call(aten.unsqueeze.default, given.mixed, 2))
    flat = given.sketch.call(RESHAPE, scaled, [-1, 12])
    given.outputs.append(given.reader(flat, [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], "one"))


def flat_turned(given: Heads) -> None:
    back = given.sketch.call(aten.flip.default, given.flat, [1])
    given.outputs.append(given.reader(back, [[0, 1, 0], [0, 0, 1]], "one"))


def flat_output(given: Heads) -> None:
    given.outputs.append(given.reader(given.flat, [[1, 0, 0], [0, 1, 0]], "one"))
    given.outputs.append(given.sketch.call(aten.layer_norm.default, given.flat, [6]))


def viewed_otherwise(given: Heads) -> None:
    other = given.sketch.call(aten.relu.default, given.sketch.call(RESHAPE, given.wide, [-1, 3, 2]))
    given.outputs.append(given.reader(given.sketch.call(RESHAPE, other, [-1, 6]), [[1, 0, 0], [0, 1, 0]], "one"))


@pytest.mark.parametrize(
    "use",
    [
        read_size,
        softmax,
        one_head,
        summed_heads,
        turned,
        shared_table,
        table_read_twice,
        flat_table_read_twice,
        repeated_dims,
        view_of_three,
        flat_turned,
        flat_output,
        viewed_otherwise,
    ],
)
def test_other_uses_of_the_dims_forbid_it(use: Callable[[Heads], object]) -> None:
    given = Heads()
    use(given)
    assert given.rows() is None


def test_dims_viewed_as_several_again_have_places() -> None:
    """Head 0 needs dim 0 and head 1 dim 3: both keep both. The halves of a head may still keep their own."""
    sketch = Sketch()
    wide = sketch.call(LINEAR, sketch.input("b", 4), sketch.weight("w", matrix(8, 4)))
    heads = sketch.call(aten.relu.default, sketch.call(RESHAPE, wide, [-1, 2, 4]))
    halves = sketch.call(aten.relu.default, sketch.call(RESHAPE, heads, [-1, 2, 2, 2]))
    flat = sketch.call(RESHAPE, sketch.call(RESHAPE, halves, [-1, 2, 4]), [-1, 8])
    reads = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1]).double()
    liveness = Liveness(sketch.constants(sketch.call(LINEAR, flat, sketch.weight("down", matrix(2, 8) * reads))))
    coupling = couple(liveness.constants, liveness)
    make_ragged(coupling, liveness)
    assert keeps(coupling, wide, 1) == [T, F, F, T, T, F, F, T]
    assert keeps(coupling, halves, 3) == [T, T]
    assert coupling.count(halves, 3) == 1


@pytest.mark.parametrize("pinned", [False, True])
def test_pieces_of_a_fused_weight_may_be_ragged_unless_it_stays_whole(pinned: bool) -> None:
    sketch = Sketch()
    fused = sketch.call(LINEAR, sketch.input("b", 4), sketch.weight("w", matrix(8, 4)))
    wide = sketch.call(aten.slice.Tensor, fused, 1, 0, 6)
    heads = sketch.call(aten.relu.default, sketch.call(RESHAPE, wide, [-1, 2, 3]))
    reads = torch.tensor([1, 0, 0, 0, 1, 0]).double()
    out = sketch.call(LINEAR, sketch.call(RESHAPE, heads, [-1, 6]), sketch.weight("down", matrix(2, 6) * reads))
    if pinned:
        sketch.call(aten.sym_size.int, fused, 1)
    liveness = Liveness(sketch.constants(out))
    coupling = couple(liveness.constants, liveness)
    make_ragged(coupling, liveness)
    assert [rows.tolist() for rows in coupling.rows.values()] == ([] if pinned else [[[T, F, F], [F, T, F]]])


def grouped(reads: object) -> tuple[Coupling, fx.Node, fx.Node]:
    """2 key heads of 4 dims serve 4 query heads; (coupling, wide value of the key heads, flat one of the queries)."""
    sketch = Sketch()
    wide = sketch.call(LINEAR, sketch.input("b", 4), sketch.weight("w", matrix(8, 4)))
    heads = sketch.call(aten.relu.default, sketch.call(RESHAPE, wide, [-1, 2, 4]))
    repeated = sketch.call(aten.repeat_interleave.self_int, heads, 2, 1)
    flat = sketch.call(RESHAPE, repeated, [-1, 16])
    columns = torch.tensor(reads).double().flatten()
    liveness = Liveness(sketch.constants(sketch.call(LINEAR, flat, sketch.weight("down", matrix(2, 16) * columns))))
    coupling = couple(liveness.constants, liveness)
    make_ragged(coupling, liveness)
    return coupling, wide, flat


def test_query_heads_of_a_group_share_the_dims_of_their_key_head() -> None:
    coupling, wide, flat = grouped([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert [rows.tolist() for rows in coupling.rows.values()] == [[[T, T, F, F], [T, F, T, F]]]
    assert keeps(coupling, wide, 1) == [T, T, F, F, T, F, T, F]
    assert keeps(coupling, flat, 1) == [T, T, F, F, T, T, F, F, T, F, T, F, F, F, F, F]


def test_a_head_that_needs_more_than_its_row_makes_all_rectangular_again() -> None:
    given = Heads()
    coupling = given.ragged()
    (inner,) = coupling.rows
    wide = coupling.class_of[next(g.flat for g in coupling.ties.grids)]
    coupling.seeds[wide][2] = True
    solve_again(coupling)
    assert coupling.rows == {}
    assert coupling.keeps[inner].tolist() == [T, T, T]
    assert keeps(coupling, given.wide, 1) == [T] * 6


def test_solving_again_starts_from_the_seeds() -> None:
    given = Heads()
    coupling = given.ragged()
    keep_something(coupling, given.sketch.graph)
    coupling.keeps[coupling.class_of[next(g.flat for g in coupling.ties.grids)]][:] = True
    solve_again(coupling)
    assert keeps(coupling, given.wide, 1) == [T, F, F, F, T, F]
