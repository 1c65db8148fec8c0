"""Products with a parameter: which outputs are constant, which inputs are read, and what is tied to the weight."""

from __future__ import annotations

import pytest
import torch

from passes.analysis.constants import Constants
from passes.ops.facts import some
from passes.ops.linear import nonzero_rows, reaches
from passes.ops.linear_form import linear_form
from tests.passes.sketch import NAN, Sketch, keeps, matrix, reader

aten = torch.ops.aten
T, F = True, False


def test_an_output_is_constant_where_its_row_reaches_constants_only() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 3), [2.0, NAN, 5.0])
    weight, bias = sketch.weight("w", [[1.0, 0, 1], [1, 1, 0], [0, 0, 0]]), sketch.weight("c", [10.0, 10, 10])
    out = sketch.call(aten.linear.default, x, weight, bias)
    fact = sketch.constants(out).fact(out)
    assert fact.const[0].tolist() == [T, F, T]
    assert fact.value[0].tolist() == [17.0, 0.0, 10.0]


def test_a_masked_weight_counts_as_0_and_an_unread_one_as_a_number_not_known() -> None:
    sketch = Sketch()
    out = sketch.call(aten.linear.default, sketch.input("b", 2), sketch.weight("w", [[1.0, 1], [1, 1]]))
    fact = sketch.constants(out, masks={"w": torch.tensor([[F, F], [T, F]])}).fact(out)
    assert fact.const[0].tolist() == [T, F]
    assert fact.zero[0].tolist() == [T, F]


def test_an_input_is_read_where_a_live_row_reaches_it_unless_it_folds() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 4), [NAN, NAN, NAN, 3.0])
    weight = sketch.weight("w", [[1.0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])
    out = sketch.call(aten.linear.default, x, weight)
    assert sketch.liveness(reader(sketch, out, [1.0, 0, 1])).of(x)[0].tolist() == [T, F, T, F]


def test_a_constant_that_cannot_fold_is_read_unless_it_is_0() -> None:
    """The weight is an embedding as well: its columns stay, and their number has to be right."""
    sketch = Sketch()
    ids = sketch.input("b", dtype=torch.int64, name="ids")
    x, table = sketch.fixed(sketch.input("b", 3), [3.0, 0.0, NAN]), sketch.weight("w", matrix(4, 3))
    out = sketch.call(aten.linear.default, x, table)
    liveness = sketch.liveness(reader(sketch, out, [0.0, 0, 0, 0]), sketch.call(aten.embedding.default, table, ids))
    assert liveness.of(x)[0].tolist() == [F, F, F]  # nobody reads the product
    sketch = Sketch()
    ids = sketch.input("b", dtype=torch.int64, name="ids")
    x, table = sketch.fixed(sketch.input("b", 3), [3.0, 0.0, NAN]), sketch.weight("w", matrix(4, 3))
    out = sketch.call(aten.linear.default, x, table)
    liveness = sketch.liveness(reader(sketch, out, [1.0, 0, 0, 0]), sketch.call(aten.embedding.default, table, ids))
    assert liveness.of(x)[0].tolist() == [T, F, T]


def test_rows_go_with_the_result_and_columns_with_the_input_also_of_a_transposed_weight() -> None:
    for target, out_dim in ((aten.linear.default, 0), (aten.addmm.default, 1)):
        sketch = Sketch()
        x, bias = sketch.free(2, 3), sketch.weight("c", [0.0] * 5)
        weight = sketch.weight("w", matrix(5, 3) if out_dim == 0 else matrix(3, 5))
        out = sketch.call(target, *((x, weight, bias) if out_dim == 0 else (bias, x, weight)))
        coupling = sketch.coupling({out: [F, F, T, F, F], x: [[T, F, F], [F, F, F]]})
        assert keeps(coupling, weight, out_dim) == keeps(coupling, bias, 0) == [F, F, T, F, F]
        assert keeps(coupling, weight, 1 - out_dim) == [T, F, F]
        assert keeps(coupling, x, 0) == keeps(coupling, out, 0) == [T, T]  # a live channel lives at both positions


@pytest.mark.parametrize("shape", [(2, 3), (3000, 300)])
def test_reaching_goes_piece_by_piece_through_patterns_of_any_layout(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    dense = torch.rand(shape) > 0.99
    rows, columns = torch.rand(shape[0], 1) > 0.5, torch.rand(shape[1]) > 0.5
    for pattern in (dense, dense.t().contiguous().t(), rows.expand(shape), columns.expand(shape), rows & columns):
        for chosen in (torch.rand(shape[0]) > 0.9, torch.zeros(shape[0], dtype=torch.bool)):
            assert torch.equal(reaches(chosen, pattern), (pattern & chosen[:, None]).any(0))


def test_reaching_by_rows() -> None:
    pattern = torch.tensor([[T, F, F], [F, T, F], [F, F, F]])
    assert reaches(torch.tensor([T, F, F]), pattern).tolist() == [T, F, F]
    assert reaches(torch.tensor([[T, F, F]]), pattern).tolist() == [[T, F, F]]
    assert reaches(torch.tensor([[T], [F]]), torch.tensor([[T, F]])).tolist() == [[T, F], [F, F]]
    assert reaches(torch.tensor([[T, F, T], [F, T, F]]), pattern).tolist() == [[T, F, F], [F, T, F]]
    assert reaches(torch.tensor([T, T, T]), pattern).tolist() == some(pattern, 0).tolist() == [T, T, F]
    assert reaches(torch.tensor([F, F, F]), pattern).tolist() == [F, F, F]
    assert some(pattern, 1).tolist() == [T, T, F]


def test_a_weight_that_cannot_be_read_counts_as_dense() -> None:
    sketch = Sketch()
    out = sketch.call(aten.linear.default, sketch.input("b", 4, 3), sketch.weight("w", matrix(5, 3)))
    form = linear_form(out)
    assert form is not None
    pattern = nonzero_rows(form, Constants(sketch.done(out), read=lambda name: None))
    assert pattern.shape == (5, 3)
    assert bool(pattern.all())


def test_what_constants_add_differs_from_row_to_row() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 3, 2), [[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    out = sketch.call(aten.linear.default, x, sketch.weight("w", [[1.0, 10.0]]))
    assert sketch.constants(out).fact(out).value[0].tolist() == [[12.0], [10.0], [10.0]]


def test_a_constant_that_cannot_fold_but_meets_zeros_alone_is_not_read() -> None:
    sketch = Sketch()
    ids = sketch.input("b", dtype=torch.int64, name="ids")
    x, table = sketch.fixed(sketch.input("b", 3), [3.0, NAN, 4.0]), sketch.weight("w", [[0.0, 1, 1], [0, 1, 1]])
    out = sketch.call(aten.linear.default, x, table)
    liveness = sketch.liveness(out, sketch.call(aten.embedding.default, table, ids))
    assert liveness.of(x)[0].tolist() == [F, T, T]


def test_positions_of_the_input_go_with_those_of_the_result() -> None:
    sketch = Sketch()
    x = sketch.free(3, "b", 2)
    out = sketch.call(aten.linear.default, x, sketch.weight("w", matrix(4, 2)))
    coupling = sketch.coupling({out: torch.tensor([F, T, F])[:, None, None]})
    assert keeps(coupling, x, 0) == keeps(coupling, out, 0) == [F, T, F]
