"""What a fact says, and the small operations on facts that every rule is made of."""

from __future__ import annotations

import pytest
import torch

from passes.ops.facts import (
    Axis,
    Fact,
    along,
    any_over,
    as_rows,
    axis,
    collapse_fact,
    fact_shape,
    factors_of,
    make_fact,
    nothing_constant,
    outer,
    reduce_to,
    value_name,
)
from tests.passes.sketch import Sketch, matrix

T, F = True, False


def bools(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


def test_data_dims_have_size_1_in_facts_and_no_axis() -> None:
    sketch = Sketch()
    x, weight = sketch.input("b", 1, 4), sketch.weight("inner.w", matrix(3, 4))
    assert fact_shape(x) == (1, 1, 4)
    assert [axis(x, d) for d in (0, 1, -1)] == [None, None, Axis("x", 2)]
    assert axis(weight, -2) == Axis("@inner.w", 0)
    assert value_name(sketch.graph.get_attr("inner.w")) == "@inner.w"  # one name for every node that reads it


def test_zero_is_what_is_constant_and_0() -> None:
    fact = Fact(bools(T, T, F), torch.tensor([0.0, 2.0, 0.0]))
    assert fact.zero.tolist() == [T, F, F]


def test_a_fact_has_no_number_where_it_is_not_constant() -> None:
    made = make_fact(bools(T, F), torch.tensor([3.0, 4.0]))
    assert made.value.tolist() == [3.0, 0.0]
    nobody = make_fact(bools(F, F), torch.tensor([3.0, 4.0]))
    assert (nobody.const.any().item(), nobody.value.tolist()) == (F, [0.0, 0.0])
    assert nothing_constant((2, 3), torch.int64).value.dtype is torch.int64


def test_collapsing_needs_the_same_constant_at_every_entry() -> None:
    const = bools([T, T, T], [T, T, F])
    value = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 0.0]])
    collapsed = collapse_fact(Fact(const, value), [0])
    assert collapsed.const.tolist() == [[T, F, F]]
    assert collapsed.value.tolist() == [[1.0, 0.0, 0.0]]
    assert collapse_fact(Fact(bools(T, F), torch.tensor([0.0, 0.0])), [0]).const.tolist() == [F]  # the other is no 0
    assert collapse_fact(Fact(bools(T, T), torch.tensor([1.0, 1.25])), [0]).const.tolist() == [F]
    flags = collapse_fact(Fact(bools(T, T), bools(T, T)), [0])
    assert (flags.const.tolist(), flags.value.tolist()) == ([T], [T])
    both = collapse_fact(Fact(torch.ones(2, 2, dtype=torch.bool), bools([T, T], [T, F])), [0, 1])
    assert both.const.tolist() == [[F]]
    assert both.value.dtype is torch.bool


def test_rows_are_what_the_last_dim_holds() -> None:
    assert as_rows(torch.zeros(2, 3, 4)).shape == (6, 4)
    assert as_rows(torch.zeros(4)).shape == (1, 4)
    assert as_rows(torch.zeros(2, 0)).shape == (2, 0)


def test_broadcasting_is_undone_by_any() -> None:
    live = bools([[F, T], [F, F]], [[F, F], [F, F]])
    assert reduce_to(bools([T, F], [F, F]), (2,)).tolist() == [T, F]
    assert reduce_to(bools([T, T], [F, F]), (2,)).tolist() == [T, T]
    assert reduce_to(live, (2, 1)).tolist() == [[T], [F]]
    assert along(live, -1).tolist() == [F, T]
    assert along(live, 0).tolist() == [T, F]
    assert any_over(live, [1]).tolist() == [[[F, T]], [[F, F]]]


@pytest.mark.parametrize("rows", [(1, 1, 1), (1, 0, 1), (0, 0, 0)])
@pytest.mark.parametrize("columns", [(1, 1), (0, 1)])
def test_patterns_of_rows_and_columns_come_apart_and_together_again(
    rows: tuple[int, ...], columns: tuple[int, ...]
) -> None:
    pattern = torch.tensor(rows).bool()[:, None] & torch.tensor(columns).bool()
    factors = factors_of(pattern.shape, pattern.__getitem__)
    assert factors is not None
    assert torch.equal(outer(factors), pattern)


def test_a_few_zeros_of_their_own_are_kept_apart() -> None:
    pattern = torch.ones(2**11, 2**9, dtype=torch.bool)
    pattern[5:9], pattern[700, 3], pattern[2040, 511] = False, False, False
    factors = factors_of(pattern.shape, pattern.__getitem__)
    assert factors is not None
    assert factors.holes.tolist() == [700 * 2**9 + 3, 2040 * 2**9 + 511]
    assert torch.equal(outer(factors), pattern)


def test_other_patterns_have_no_factors() -> None:
    for pattern in (torch.eye(2).bool(), torch.ones(3).bool()):
        assert factors_of(pattern.shape, pattern.__getitem__) is None
