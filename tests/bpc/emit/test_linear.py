"""Linear layers of a file, and their merging."""

from __future__ import annotations

import numpy as np
import pytest

from bpc.emit.linear import MergeSiblings, SplitGemm, linear_layers, projection
from tests.bpc.emit.models import numbers, operators, parse, run

W, V, B = numbers(4, 3, seed=1), numbers(4, 2, seed=2), numbers(3, seed=3)


@pytest.mark.parametrize("addition", ["y = Add(p, b)", "y = Add(b, p)"])
def test_the_bias_may_stand_on_either_side(addition: str) -> None:
    model = parse("(float[n, 4] x) => (float[n, 3] y)", f"p = MatMul(x, w) {addition}", {"w": W, "b": B})
    (layer,) = linear_layers(model.graph)
    assert layer.output is model.graph.outputs[0]
    np.testing.assert_allclose(layer.bias(), B)
    plain = projection(layer.product.outputs[0])
    assert plain is not None
    assert (plain.features, plain.bias().tolist()) == (3, [0, 0, 0])


def test_a_product_with_what_is_no_constant_is_no_layer() -> None:
    model = parse("(float[n, 4] x, float[4, 3] w) => (float[n, 3] y)", "y = MatMul(x, w)")
    assert list(linear_layers(model.graph)) == []


@pytest.mark.parametrize(
    ("gemm", "modified"),
    [("Gemm(x, w, b)", True), ("Gemm<transB = 1>(x, t, b)", True), ("Gemm(x, w)", True),
     ("Gemm<alpha = 0.5>(x, w, b)", False), ("Gemm<beta = 2.0>(x, w, b)", False)],
)  # fmt: skip
def test_a_gemm_is_a_product_and_a_sum(gemm: str, modified: bool) -> None:
    model = parse("(float[n, 4] x) => (float[n, 3] y)", f"y = {gemm}", {"w": W, "t": W.T.copy(), "b": B})
    x = numbers(5, 4)
    before = run(model, x=x)
    assert SplitGemm()(model).modified == modified
    assert (operators(model)["Gemm"], operators(model)["MatMul"]) == ((0, 1) if modified else (1, 0))
    np.testing.assert_allclose(run(model, x=x)[0], before[0], rtol=1e-5)


def test_siblings_of_one_kind_become_one_product() -> None:
    body = "p = MatMul(x, w) y = Add(p, b) q = MatMul(x, v) z = Add(q, c) plain = MatMul(x, w)"
    outputs = "(float[n, m, 3] y, float[n, m, 2] z, float[n, m, 3] plain)"
    weights = {"w": W, "b": B, "v": V, "c": numbers(2, seed=4)}
    model, x = parse(f"(float[n, m, 4] x) => {outputs}", body, weights), numbers(2, 3, 4)
    before = run(model, x=x)
    assert MergeSiblings()(model).modified
    assert operators(model) == {"MatMul": 2, "Add": 1, "Split": 1}  # the one without a bias stays apart
    for actual, expected in zip(run(model, x=x), before, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert not MergeSiblings()(model).modified
