"""Token-wise parts on matrices of rows."""

from __future__ import annotations

import numpy as np

from bpc.emit.rows import FlattenRows
from tests.bpc.emit.models import numbers, operators, parse, run

WEIGHTS = {"w": numbers(4, 3, seed=1), "b": numbers(3, seed=2), "scale": np.ones(3, np.float32)}


def test_layers_between_two_attentions_run_on_rows() -> None:
    body = "p = MatMul(x, w) q = Add(p, b) r = Relu(q) y = LayerNormalization<axis = 2>(r, scale, b)"
    model = parse("(float[batch, sequence, 4] x) => (float[batch, sequence, 3] y)", body, WEIGHTS)
    feeds = [numbers(2, 5, 4), numbers(1, 1, 4)]
    before = [run(model, x=x)[0] for x in feeds]
    assert FlattenRows()(model).modified
    assert all(len(n.outputs[0].shape) == 2 for n in model.graph if n.op_type in ("MatMul", "Add", "Relu"))  # type: ignore[arg-type]
    assert operators(model)["Reshape"] == 2  # in and out: what was between has cancelled
    for x, expected in zip(feeds, before, strict=True):
        np.testing.assert_allclose(run(model, x=x)[0], expected, rtol=1e-5, atol=1e-6)
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_what_mixes_rows_stays_as_it_is() -> None:
    weights = {"scale": np.ones((5, 4), np.float32), "table": numbers(1, 5, 4), "b": numbers(5, 4)}
    body = "p = LayerNormalization<axis = 1>(x, scale, b) q = Add(p, table) y = MatMul(q, other)"
    model = parse("(float[n, 5, 4] x, float[n, 4, 2] other) => (float[n, 5, 2] y)", body, weights)
    before = operators(model)
    assert not FlattenRows()(model).modified
    assert operators(model) == before
