"""Positions and counts in half-precision files: exact beyond what half precision can count."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from bpc.emit.exact_floats import exact_nodes
from bpc.emit.floats import ConvertFloats
from tests.bpc.emit.models import operators, parse

ANGLES = """
    f = Cast<to = 1>(positions)
    row = Unsqueeze(rates, zero)
    column = Unsqueeze(f, one)
    angles = MatMul(column, row)
    cosine = Cos(angles)
    turned = Mul(x, cosine)
    y = Add(turned, rates)
"""
RATES = {"rates": np.array([1.0, 0.1], np.float32), "zero": np.array([0]), "one": np.array([1])}
SIGNATURE = "(int64[n] positions, float[n, 2] x) => (float[n, 2] y)"


def test_angles_are_computed_in_float32_and_the_rest_in_half_precision() -> None:
    model = parse(SIGNATURE, ANGLES, RATES)
    positions = np.array([0, 5, 300, 1237, 4001])
    feed = {"positions": positions, "x": np.ones((5, 2), np.float32)}
    assert ConvertFloats(ir.DataType.FLOAT16)(model).modified
    assert not ConvertFloats(ir.DataType.FLOAT16)(model).modified
    (found,) = ReferenceEvaluator(ir.to_proto(model)).run(None, feed)
    expected = np.cos(positions[:, None] * np.array([1.0, 0.1])) + np.array([1.0, 0.1])
    np.testing.assert_allclose(found, expected, atol=2e-3)  # 4001 is no float16, and 0.1 · 4001 would be off by 0.1
    kinds = {node.op_type: node.outputs[0].dtype for node in model.graph if node.op_type in ("Cos", "Mul", "Add")}
    assert kinds == {"Cos": ir.DataType.FLOAT, "Mul": ir.DataType.FLOAT16, "Add": ir.DataType.FLOAT16}
    stored = {value.dtype for value in model.graph.initializers.values() if str(value.name).startswith("rates")}
    assert stored == {ir.DataType.FLOAT, ir.DataType.FLOAT16}  # read by both


def test_counts_that_become_indices_stay_float32() -> None:
    body = "f = Cast<to = 1>(n) summed = ReduceSum(f) more = Mul(summed, two) y = Cast<to = 7>(more)"
    model = parse("(int64[k] n) => (int64[1] y)", body, {"two": np.array([2.0], np.float32)})
    assert len(exact_nodes(model.graph)) == 4
    assert not ConvertFloats(ir.DataType.BFLOAT16)(model).modified


@pytest.mark.parametrize("end", ["y = Exp(z)", "y = Floor(z)"])
def test_what_is_neither_angle_nor_index_is_converted(end: str) -> None:
    model = parse("(int64[n] mask) => (float[n] y)", f"z = Cast<to = 1>(mask) {end}")
    assert not exact_nodes(model.graph)


def test_what_the_model_computes_is_converted_whatever_it_leads_to() -> None:
    model = parse("(float[n] x) => (int64[n] y)", "z = Exp(x) y = Cast<to = 7>(z)")
    assert not exact_nodes(model.graph)


def test_the_best_are_chosen_among_float32() -> None:
    """TopK has no bfloat16 that ONNX Runtime would load."""
    body = "z = Exp(x) v, i = TopK(z, k) y = Neg(v)"
    model = parse("(float[n, 4] x) => (float[n, 2] y)", body, {"k": np.array([2])})
    ConvertFloats(ir.DataType.BFLOAT16)(model)
    assert operators(model)["Cast"] == 4  # at the input, before, after, at the output
    top = next(node for node in model.graph if node.op_type == "TopK")
    assert {top.inputs[0].dtype, top.outputs[0].dtype} == {ir.DataType.FLOAT}
    assert next(node for node in model.graph if node.op_type == "Neg").outputs[0].dtype == ir.DataType.BFLOAT16
    assert not ConvertFloats(ir.DataType.BFLOAT16)(model).modified
