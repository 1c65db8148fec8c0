"""Pointwise operators: their function of constants, what a 0 absorbs, and operands that give a dtype or shape only."""

from __future__ import annotations

import operator

import torch
from torch import fx

from passes.ops.pointwise import hidden_fill, is_pointwise, keeps_rows
from passes.ops.table import find_tables
from tests.passes.sketch import NAN, Sketch, keeps, tied

aten = torch.ops.aten
T, F = True, False


def pair(sketch: Sketch) -> tuple[fx.Node, fx.Node]:
    x, y = sketch.input("b", 4), sketch.input("b", 4, name="y")
    return sketch.fixed(x, [0.0, 2.0, 2.0, NAN], "a"), sketch.fixed(y, [NAN, NAN, 5.0, NAN], "b")


def test_a_product_is_0_where_a_factor_is_and_a_sum_needs_both() -> None:
    sketch = Sketch()
    a, b = pair(sketch)
    product, total = sketch.call(aten.mul.Tensor, a, b), sketch.call(aten.add.Tensor, a, b, alpha=3)
    either, quotient = sketch.call(aten.maximum.default, a, b), sketch.call(aten.div.Tensor, a, b)
    constants = sketch.constants(product, total, either, quotient)
    assert constants.fact(product).const[0].tolist() == [T, F, T, F]
    assert constants.fact(product).value[0].tolist() == [0.0, 0.0, 10.0, 0.0]
    assert constants.fact(total).const[0].tolist() == [F, F, T, F]
    assert constants.fact(total).value[0, 2].item() == 17.0  # alpha counts
    assert constants.fact(either).value[0].tolist() == [0.0, 0.0, 5.0, 0.0]
    assert not constants.fact(quotient).const[0, 0]  # 0 / 0 is no 0


def test_a_factor_is_not_read_where_the_other_is_0() -> None:
    sketch = Sketch()
    a, b = pair(sketch)
    out = sketch.call(aten.mul.Tensor, a, b)
    square = sketch.call(aten.mul.Tensor, b, b)
    liveness = sketch.liveness(out)
    assert liveness.of(b)[0].tolist() == [F, T, T, T]
    assert liveness.of(square).any().item() is F
    assert liveness.of(a)[0].tolist() == [T, T, T, T]


def test_a_broadcast_operand_is_read_where_any_result_is() -> None:
    sketch = Sketch()
    x, gate = sketch.input("b", 2, 3), sketch.input("b", 2, 1, name="gate")
    out = sketch.call(aten.mul.Tensor, x, gate)
    keep = sketch.weight("keep", [[0.0, 0, 1], [0, 0, 0]])
    liveness = sketch.liveness(sketch.call(aten.mul.Tensor, out, keep))
    assert liveness.of(gate).flatten().tolist() == [T, F]


def test_a_number_from_a_size_makes_nothing_constant() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [1.0, NAN])
    out = sketch.call(aten.mul.Tensor, x, sketch.call(aten.sym_size.int, x, 0))
    assert not bool(sketch.constants(out).fact(out).const.any())


def test_casts_take_the_numbers_of_one_operand_and_read_no_other() -> None:
    sketch = Sketch()
    x, like = sketch.fixed(sketch.input("b", 2), [1.5, NAN]), sketch.input("b", 9, dtype=torch.int64, name="like")
    cast, written = sketch.call(aten.type_as.default, x, like), sketch.call(aten.copy.default, like, like)
    liveness = sketch.liveness(cast)
    fact = liveness.constants.fact(cast)
    assert (fact.value.dtype, fact.value[0].tolist()) == (torch.int64, [1, 0])
    assert not bool(liveness.of(like).any())
    assert not keeps_rows(cast)
    assert keeps_rows(x)
    assert not bool(liveness.of(written).any())


def test_an_overwritten_value_gives_its_shape_and_takes_the_others_numbers() -> None:
    sketch = Sketch()
    old, new = sketch.free("b", 3), sketch.free("b", 3, name="new")
    out = sketch.call(aten.copy.default, old, new)
    coupling = sketch.coupling({out: [F, T, F]})
    assert tied(coupling, (old, 1), (new, 1), (out, 1))
    assert keeps(coupling, old, 1) == [F, T, F]
    sketch = Sketch()
    old, new = sketch.input("b", 3), sketch.input("b", 3, name="new")
    liveness = sketch.liveness(sketch.call(aten.copy.default, old, new))
    assert (bool(liveness.of(old).any()), bool(liveness.of(new).all())) == (F, T)


def test_which_fills_hide() -> None:
    sketch = Sketch()
    x, mask = sketch.input("b", 2), sketch.input("b", 2, dtype=torch.bool, name="mask")
    full = sketch.call(aten.full.default, [], -1e9)
    assert hidden_fill(sketch.call(aten.masked_fill.Scalar, x, mask, -5.0), x) == -5.0
    assert hidden_fill(sketch.call(aten.where.self, mask, x, full), x) == -1e9
    assert hidden_fill(sketch.call(aten.where.self, mask, full, x), x) is None  # x replaces
    one = sketch.input(name="one")
    assert hidden_fill(sketch.call(aten.masked_fill.Tensor, x, mask, one), x) is None  # by a computed number
    assert hidden_fill(sketch.call(aten.masked_fill.Tensor, x, mask, full), full) is None  # what it fills with
    assert hidden_fill(sketch.call(aten.masked_fill.Scalar, mask, mask, 1.0), mask) is None  # it says where, too
    assert hidden_fill(sketch.call(aten.where.self, mask, mask, full), mask) is None
    assert hidden_fill(sketch.call(aten.where.self, mask, x, full), full) is None


def test_chance_is_not_pointwise() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2)
    assert is_pointwise(sketch.call(aten.erf.default, x))
    assert not is_pointwise(sketch.call(aten.bernoulli.default, x))
    assert not is_pointwise(sketch.call(aten.rrelu.default, x))
    assert not is_pointwise(sketch.call(operator.getitem, [x], 0))
    assert not is_pointwise(sketch.call(aten.sum.default, x))


def test_a_summand_is_read_whatever_the_other_is() -> None:
    sketch = Sketch()
    a, b = pair(sketch)
    assert bool(sketch.liveness(sketch.call(aten.add.Tensor, a, b)).of(b).all())


def test_what_gives_its_dtype_is_free_and_what_is_cast_is_still_a_table() -> None:
    sketch = Sketch()
    x, like = sketch.free("b", 3), sketch.free("b", 4, name="like")
    cast = sketch.call(aten.type_as.default, x, like)
    square = sketch.call(aten.square.default, cast)
    coupling = sketch.coupling({cast: [F, T, F], like: [T, F, F, F]})
    assert keeps(coupling, like, 1) == [T, F, F, F]
    assert keeps(coupling, x, 1) == [F, T, F]
    assert {cast, square} <= find_tables(sketch.graph)
