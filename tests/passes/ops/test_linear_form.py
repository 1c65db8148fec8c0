"""What counts as a product with a parameter, and what of the parameter it sees."""

from __future__ import annotations

from typing import Any

import torch

from passes.ops.linear_form import Window, linear_form
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def test_every_spelling_is_read_alike() -> None:
    sketch = Sketch()
    x, weight, bias = sketch.input("b", 3), sketch.weight("w", matrix(3, 3)), sketch.weight("c", [0.0] * 3)
    forms: list[tuple[Any, tuple[str, str | None, int] | None]] = [
        (sketch.call(aten.linear.default, x, weight, bias), ("w", "c", 0)),
        (sketch.call(aten.linear.default, x, weight), ("w", None, 0)),
        (sketch.call(aten.addmm.default, bias, x, weight), ("w", "c", 1)),
        (sketch.call(aten.mm.default, x, weight), ("w", None, 1)),
        (sketch.call(aten.matmul.default, x, weight), ("w", None, 1)),
        (sketch.call(aten.addmm.default, bias, x, weight, alpha=2), None),
        (sketch.call(aten.addmm.default, bias, x, weight, beta=0), None),
        (sketch.call(aten.mm.default, weight, weight), None),  # no input at all
        (sketch.call(aten.linear.default, x, sketch.call(aten.neg.default, weight)), None),
        (sketch.call(aten.add.Tensor, x, bias), None),
    ]
    for node, expected in forms:
        form = linear_form(node)
        found = None if form is None else (form.weight_name, form.bias_name, form.out_dim)
        assert found == expected, node.format_node()
        assert form is None or {form.in_dim, form.out_dim} == {0, 1}


def test_a_bias_that_is_computed_or_no_vector_is_no_bias() -> None:
    sketch = Sketch()
    x, weight, bias = sketch.input("b", 3), sketch.weight("w", matrix(3, 3)), sketch.weight("c", [0.0] * 3)
    table = sketch.weight("table", matrix(1, 3))
    assert linear_form(sketch.call(aten.linear.default, x, weight, sketch.call(aten.neg.default, bias))) is None
    assert linear_form(sketch.call(aten.addmm.default, table, x, weight)) is None


def sliced(sketch: Sketch, name: str, value: torch.Tensor, *bounds: Any) -> torch.fx.Node:
    return sketch.call(aten.slice.Tensor, sketch.weight(name, value), *bounds)


def test_a_slice_of_output_features_is_a_window_onto_weight_and_bias() -> None:
    sketch = Sketch()
    x, values = sketch.input("b", 3), matrix(6, 3)
    form = linear_form(
        sketch.call(
            aten.linear.default, x, sliced(sketch, "w", values, 0, 2, 4), sliced(sketch, "c", values[:, 0], 0, 2, 4)
        )
    )
    assert form is not None
    assert form.window == Window(2, 4)
    assert torch.equal(form.rows(values), values[2:4])
    assert torch.equal(form.all_rows(values), values)
    whole = linear_form(sketch.call(aten.linear.default, x, sliced(sketch, "w", values, 0, 0, 99)))
    assert whole is not None
    assert whole.window is None


def test_other_slices_are_no_windows() -> None:
    sketch = Sketch()
    x, two, values, bias = (
        sketch.input("b", 3),
        sketch.input("b", 2, name="y"),
        matrix(6, 3),
        sketch.weight("c", [0.0] * 6),
    )
    strided = sliced(sketch, "w", values, 0, 0, 6, 2)
    columns = sliced(sketch, "w", values, 1, 0, 2)
    rows = sliced(sketch, "w", values, 0, 0, 3)
    shifted = sketch.call(aten.slice.Tensor, bias, 0, 3, 6)
    assert linear_form(sketch.call(aten.linear.default, x, strided)) is None
    assert linear_form(sketch.call(aten.linear.default, two, columns)) is None
    assert linear_form(sketch.call(aten.linear.default, x, rows, shifted)) is None  # not the rows' own bias


def test_a_slice_up_to_a_size_of_the_data_is_no_window() -> None:
    sketch = Sketch()
    x, table = sketch.input("b", "t", 3), matrix(9, 3)
    length = sketch.call(aten.sym_size.int, x, 1)
    rows = sliced(sketch, "w", table, 0, 0, length)
    assert linear_form(sketch.call(aten.linear.default, x, rows)) is None
