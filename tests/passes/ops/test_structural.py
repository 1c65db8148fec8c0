"""Operators that move entries: constants move with them, what is live is pulled back, sizes are not read."""

from __future__ import annotations

import pytest
import torch

from passes.ops.facts import axis
from passes.ops.structural import tie_other_dims
from passes.ops.table import find_tables
from passes.ops.ties import Ties
from passes.ops.views import EXPAND_AS
from tests.passes.sketch import NAN, Sketch

aten = torch.ops.aten
T, F = True, False


def test_channels_merged_into_data_are_constant_only_where_all_agree() -> None:
    """(b, 2, 2) -> (2b, 2): both rows end up at every data index."""
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2, 3), [[1.0, 1.0, NAN], [1.0, 2.0, 1.0]])
    out = sketch.call(aten.reshape.default, x, [-1, 3])
    liveness = sketch.liveness(sketch.call(aten.mul.Tensor, out, sketch.weight("keep", [0.0, 0.0, 1.0])))
    fact = liveness.constants.fact(out)
    assert fact.const[0].tolist() == [T, F, F]
    assert fact.value[0].tolist() == [1.0, 0.0, 0.0]
    assert liveness.of(x)[0].tolist() == [[F, F, T], [F, F, T]]  # any row is read


def test_a_number_that_is_not_known_stays_constant() -> None:
    sketch = Sketch()
    sketch.input("b", 2)
    unread = sketch.weight("unread", [NAN, 1.0])  # as `Constants.weight` gives a parameter that cannot be read
    out = sketch.call(aten.flip.default, unread, [0])
    fact = sketch.constants(out).fact(out)
    assert bool(fact.const.all())
    assert fact.value.isnan().tolist() == [F, T]


def test_bools_move_as_bools() -> None:
    sketch = Sketch()
    sketch.input("b", 2)
    flags = sketch.weight("flags", torch.tensor([True, False]))
    out = sketch.call(aten.flip.default, flags, [0])
    fact = sketch.constants(out).fact(out)
    assert (fact.value.dtype, fact.value.tolist(), bool(fact.const.all())) == (torch.bool, [F, T], T)


def test_a_value_that_gives_its_shape_is_not_read() -> None:
    sketch = Sketch()
    x, like = sketch.input("b", 1), sketch.input("b", 3, name="like")
    out = sketch.call(aten.expand_as.default, x, like)
    live = EXPAND_AS.live(out, torch.ones(1, 3, dtype=torch.bool), None)  # type: ignore[arg-type]
    assert (bool(live[x].all()), bool(live[like].any())) == (T, F)


@pytest.mark.parametrize(
    ("numbers", "agree"),
    [
        (torch.tensor([1, 1]), T),
        (torch.tensor([1, 2]), F),
        (torch.tensor([NAN, 1.0]), F),  # as far as anybody knows
        (torch.tensor([1.0, NAN]), F),
        (torch.tensor([NAN, NAN]), F),
        (torch.tensor([torch.inf, torch.inf]), T),
        (torch.tensor([NAN]), T),
    ],
)
def test_channels_that_become_data_have_to_be_one_known_number(numbers: torch.Tensor, agree: bool) -> None:
    sketch = Sketch()
    length = sketch.call(aten.sym_size.int, sketch.input("b"), 0)
    part = sketch.call(aten.slice.Tensor, sketch.weight("w", numbers), 0, 0, length)
    assert bool(sketch.constants(part).fact(part).const.all()) == agree


def test_one_constant_piece_is_constant_beside_an_unknown_one() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2)
    out = sketch.call(aten.cat.default, [sketch.fixed(x, [1.0, NAN]), x], 1)
    assert sketch.constants(out).fact(out).const[0].tolist() == [T, F, F, F]


def test_what_moves_a_table_is_a_table_and_dims_that_are_left_alone_are_the_same() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 3)
    moved = sketch.call(aten.flip.default, x, [1])
    assert moved in find_tables(sketch.graph)
    ties = Ties(frozenset())
    tie_other_dims(moved, x, [1], ties)
    assert [set(pair) for pair in ties.graph.edges] == [{axis(moved, 2), axis(x, 2)}]
