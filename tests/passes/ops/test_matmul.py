"""Products of computed matrices: constant times unknown, sums over data, and what a softmax ignores."""

from __future__ import annotations

import torch

from passes.ops.matmul import RULE, operands
from passes.ops.table import rule_for
from tests.passes.sketch import NAN, Sketch, keeps, reader, tied

aten = torch.ops.aten
T, F = True, False


def test_a_constant_times_an_unknown_is_unknown() -> None:
    """Row (2, 3) of a; columns of b: all known, one unknown, one unknown where a is 0."""
    sketch = Sketch()
    x, y = sketch.input("b", 2, 2), sketch.input("b", 2, 3, name="y")
    a = sketch.fixed(x, [[2.0, 3.0], [0.0, 3.0]], "a")
    b = sketch.fixed(y, [[1.0, NAN, NAN], [1.0, 1.0, 1.0]], "b")
    out = sketch.call(aten.bmm.default, a, b)
    fact = sketch.constants(out).fact(out)
    assert fact.const[0].tolist() == [[T, F, F], [T, T, T]]
    assert fact.value[0].tolist() == [[5.0, 0.0, 0.0], [3.0, 3.0, 3.0]]


def test_an_unknown_times_a_constant_is_unknown_and_times_0_is_0() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", "t", 2), sketch.input("b", 2, 2, name="y")
    out = sketch.call(aten.matmul.default, x, sketch.fixed(y, [[0.0, 2.0], [0.0, 2.0]]))
    fact = sketch.constants(out).fact(out)
    assert fact.const[0].tolist() == [[T, F]]
    assert fact.value[0].tolist() == [[0.0, 0.0]]


def test_a_sum_over_data_repeats_its_term_unless_the_rows_sum_to_1() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", "t", "t"), sketch.input("b", "t", 2, name="y")
    b = sketch.fixed(y, [4.0, NAN])
    plain = sketch.call(aten.matmul.default, sketch.fixed(x, 1.0, "ones"), b)
    mixed = sketch.call(aten.matmul.default, sketch.call(aten.softmax.int, x, -1), b)
    wrong = sketch.call(aten.matmul.default, sketch.call(aten.softmax.int, x, 1), b)
    constants = sketch.constants(plain, mixed, wrong)
    assert constants.fact(mixed).const[0].tolist() == [[T, F]]
    assert constants.fact(mixed).value[0].tolist() == [[4.0, 0.0]]
    for node in (plain, wrong):
        assert not bool(constants.fact(node).const.any())


def test_scores_ignore_a_key_channel_that_is_one_number_over_the_keys() -> None:
    for dim, expected in ((-1, [F, T, F]), (-2, [T, T, F])):  # over the keys; over the queries it matters
        sketch = Sketch()
        q, k = sketch.input("b", "t", 3), sketch.input("b", 3, "s", name="k")
        key = sketch.fixed(k, [[5.0], [NAN], [0.0]])
        scores = sketch.call(aten.matmul.default, q, key)
        liveness = sketch.liveness(sketch.call(aten.softmax.int, scores, dim))
        assert liveness.of(q)[0, 0].tolist() == expected
        assert liveness.of(key)[0, :, 0].tolist() == expected


def test_reads_follow_the_other_factor_and_one_value_may_be_both() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2, 2)
    z = sketch.fixed(x, [[NAN, 0.0], [NAN, NAN]])
    square = sketch.call(aten.bmm.default, z, z)
    liveness = sketch.liveness(reader(sketch, square, [[1.0, 0.0], [0.0, 0.0]]))
    assert liveness.of(z)[0].tolist() == [[T, F], [F, F]]  # z00² + z01 z10, and z01 is 0


def test_what_is_summed_over_goes_together_and_a_vector_gets_the_default() -> None:
    sketch = Sketch()
    x, y = sketch.free("b", 5, 4), sketch.free("b", 4, 3, name="y")
    out, by_vector = (
        sketch.call(aten.matmul.default, x, y),
        sketch.call(aten.matmul.default, y, sketch.free(3, name="v3")),
    )
    assert rule_for(out) is RULE
    assert rule_for(by_vector) is not RULE
    sketch.graph.erase_node(by_vector)
    coupling = sketch.coupling({out: [T, F, T], x: [[F, T, F, F]] + [[F] * 4] * 4})
    assert keeps(coupling, y, 2) == [T, F, T]
    assert keeps(coupling, y, 1) == [F, T, F, F]
    assert tied(coupling, (x, 1), (out, 1))


def test_batch_dims_are_counted_from_the_right() -> None:
    sketch = Sketch()
    x, y = sketch.free(6, 4, 5, 3), sketch.free(4, 3, 2, name="y")
    out = sketch.call(aten.matmul.default, x, y)
    coupling = sketch.coupling({out: [[[T, T]], [[F, F]], [[T, T]], [[F, F]]]})
    assert tied(coupling, (x, 0), (out, 0))
    assert tied(coupling, (x, 1), (y, 0), (out, 1))
    assert keeps(coupling, y, 0) == [T, F, T, F]


def test_a_row_of_zeros_is_0_whatever_it_meets() -> None:
    sketch = Sketch()
    a = sketch.fixed(sketch.input("b", 2, 2), [[0.0, 0.0], [NAN, 0.0]])
    out = sketch.call(aten.bmm.default, a, sketch.input("b", 2, 3, name="y"))
    assert sketch.constants(out).fact(out).const[0].tolist() == [[T, T, T], [F, F, F]]


def test_unknowns_on_both_sides_do_not_cancel() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", 1, 2), sketch.input("b", 2, 1, name="y")
    out = sketch.call(aten.bmm.default, sketch.fixed(x, [[NAN, 2.0]], "a"), sketch.fixed(y, [[1.0], [NAN]], "b"))
    assert not bool(sketch.constants(out).fact(out).const.any())


def test_what_is_summed_over_decides_whether_the_number_is_known() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", 3, "t"), sketch.input("b", "t", 3, name="y")
    wide, tall = sketch.fixed(x, [[1.0], [1.0], [1.0]], "wide"), sketch.fixed(y, [2.0, 2.0, 2.0], "tall")
    over_data, over_channels = sketch.call(aten.bmm.default, wide, tall), sketch.call(aten.bmm.default, tall, wide)
    constants = sketch.constants(over_data, over_channels)
    assert not bool(constants.fact(over_data).const.any())
    assert constants.fact(over_channels).value.tolist() == [[[6.0]]]


def test_rows_that_sum_to_1_give_back_what_is_one_number_over_their_columns() -> None:
    sketch = Sketch()
    rows = sketch.call(aten.softmax.int, sketch.input("b", "t", 2), -1)
    b = sketch.fixed(sketch.input("b", 2, 3, name="y"), [[4.0, 4.0, NAN], [4.0, 5.0, 4.0]])
    out = sketch.call(aten.bmm.default, rows, b)
    assert sketch.constants(out).fact(out).const[0].tolist() == [[T, F, F]]


def test_matrices_are_products_and_a_summand_in_front_gets_the_default() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", 4), sketch.input(4, 3, name="y")
    assert rule_for(sketch.call(aten.mm.default, x, y)) is RULE
    a, b, c = (sketch.input("b", *s, name=n) for n, s in (("a", (5, 4)), ("c", (4, 3)), ("d", (5, 3))))
    summed = sketch.call(aten.baddbmm.default, c, a, b)
    assert operands(summed) == (a, b)
    assert rule_for(summed) is not RULE
