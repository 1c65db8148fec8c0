"""Caches of rotary embeddings."""

from __future__ import annotations

import numpy as np

from bpc.emit.rotary import ExpandRotaryCaches
from tests.bpc.emit.models import numbers, operators, parse, run


def rotated(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    a, b = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def test_one_row_of_angles_serves_the_whole_batch_and_is_expanded_once() -> None:
    body = "q = RotaryEmbedding(x, cos, sin) y = RotaryEmbedding(q, cos, sin)"
    angles = "float[1, sequence, 2] cos, float[1, sequence, 2] sin"
    model = parse(f"(float[batch, 3, sequence, 4] x, {angles}) => (float[batch, 3, sequence, 4] y)", body)
    model.graph[0].outputs[0].shape = model.graph.inputs[0].shape
    assert ExpandRotaryCaches()(model).modified
    assert operators(model)["Expand"] == 2  # cos and sin, for both nodes
    x, cos, sin = numbers(2, 3, 5, 4), numbers(1, 5, 2, seed=1), numbers(1, 5, 2, seed=2)
    expected = rotated(rotated(x, cos, sin), cos, sin)
    np.testing.assert_allclose(run(model, x=x, cos=cos, sin=sin)[0], expected, rtol=1e-4, atol=1e-5)
    assert not ExpandRotaryCaches()(model).modified


def test_caches_with_the_batch_or_with_positions_are_left_alone() -> None:
    signature = "(float[batch, 3, s, 4] x, float[batch, s, 2] c) => (float[batch, 3, s, 4] y)"
    assert not ExpandRotaryCaches()(parse(signature, "y = RotaryEmbedding(x, c, c)")).modified
    signature = "(float[batch, 3, s, 4] x, float[9, 2] c, int64[batch, s] at) => (float[batch, 3, s, 4] y)"
    assert not ExpandRotaryCaches()(parse(signature, "y = RotaryEmbedding(x, c, c, at)")).modified
