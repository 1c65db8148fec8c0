"""Small helpers on an ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bpc.emit.ir_tools import MICROSOFT, add_initializer, insert, only_user, producer, replace, same_dims, static_dim
from tests.bpc.emit.models import numbers, operators, parse, run


def model() -> ir.Model:
    return parse("(float[batch, 4] x) => (float[batch, 4] y, float[batch, 4] z)", "y = Relu(x) z = Tanh(y)")


def test_a_value_that_is_an_output_has_other_readers() -> None:
    graph = model().graph
    x, (y, z) = graph.inputs[0], graph.outputs
    assert only_user(x, "Relu") is y.producer()
    assert only_user(x, "Tanh") is None
    assert only_user(y, "Tanh") is None
    assert producer(z, "Tanh") is not None
    assert producer(z, "Tanh", MICROSOFT) is producer(x, "Relu") is producer(None, "Relu") is None


def test_sizes_are_known_only_where_they_are_numbers() -> None:
    x = model().graph.inputs[0]
    assert [static_dim(x, axis) for axis in (0, 1, -1, 2, -3)] == [None, 4, 4, None, None]
    other = ir.Value(shape=ir.Shape(["batch", 5]))
    assert same_dims(x, other, [0])
    assert not same_dims(x, other, [0, 1])
    unknown = ir.Value(shape=ir.Shape([None, 4]))
    assert not same_dims(unknown, unknown, [0])


def test_names_of_constants_are_not_taken_twice() -> None:
    graph = model().graph
    values = [add_initializer(graph, "w", np.full(2, number)) for number in (1, 2, 3)]
    assert [value.name for value in values] == ["w", "w_1", "w_2"]
    assert graph.initializers["w_1"].const_value.numpy().tolist() == [2, 2]  # type: ignore[union-attr]


def test_a_node_takes_the_place_of_another_and_the_output_its_name() -> None:
    changed, x = model(), numbers(2, 4)
    y = changed.graph.outputs[0]
    replace(y, insert(y.producer(), "Abs", [changed.graph.inputs[0], None], like=y))  # type: ignore[arg-type]
    assert [value.name for value in changed.graph.outputs] == ["y", "z"]
    for actual, expected in zip(run(changed, x=x), (np.abs(x), np.tanh(np.abs(x))), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert operators(changed)["Abs"] == 1
    insert(y.producer(), "Gelu", [y], domain=MICROSOFT)  # type: ignore[arg-type]
    assert changed.graph.opset_imports[MICROSOFT] == 1
