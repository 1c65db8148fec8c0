"""Attention written out as products and a softmax."""

from __future__ import annotations

import numpy as np
import pytest

from bpc.emit.products import WriteOutAttention
from tests.bpc.emit.models import numbers, operators, parse, run

QKV = "float[batch, 2, s, 4] q, float[batch, 2, t, 4] k, float[batch, 2, t, 3] v"
FEED = {"q": numbers(2, 2, 5, 4), "k": numbers(2, 2, 3, 4, seed=1), "v": numbers(2, 2, 3, 3, seed=2)}


def attention(allowed: np.ndarray, bias: np.ndarray | float = 0.0, scale: float = 0.5) -> np.ndarray:
    """By hand; a query that sees no key gets 0."""
    scores = np.where(allowed, scale * FEED["q"] @ FEED["k"].transpose(0, 1, 3, 2) + bias, -np.inf)
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    return weights @ FEED["v"] / np.maximum(weights.sum(-1, keepdims=True), 1e-30)


def written_out(extra: str, node: str):  # type: ignore[no-untyped-def]
    model = parse(f"({QKV}{extra}) => (float[batch, 2, s, 3] y)", f"y = {node}")
    assert WriteOutAttention()(model).modified
    assert operators(model)["Attention"] == 0
    return model


def close(model, expected: np.ndarray, **more: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_allclose(run(model, **FEED, **more)[0], expected, rtol=1e-4, atol=1e-5)


def test_plain_attention_scales_by_the_heads_size_or_as_told() -> None:
    everything = np.ones((5, 3), bool)
    close(written_out("", "Attention(q, k, v)"), attention(everything))
    close(written_out("", "Attention<scale = 2.0>(q, k, v)"), attention(everything, scale=2.0))


def test_causal_attention_counts_from_the_start() -> None:
    model = written_out("", "Attention<is_causal = 1>(q, k, v)")
    close(model, attention(np.arange(5)[:, None] >= np.arange(3)))


def test_a_query_that_sees_no_key_gets_zero() -> None:
    allowed = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0]], bool)[None, None].repeat(2, 0)
    expected = attention(allowed)
    assert (expected[:, :, 1] == 0).all()
    close(written_out(", bool[batch, 1, s, t] m", "Attention(q, k, v, m)"), expected, m=allowed)
    bias = np.where(allowed, numbers(2, 1, 5, 3, seed=3), -np.inf).astype(np.float32)
    shown = np.where(allowed, bias, 0)
    close(written_out(", float[batch, 1, s, t] m", "Attention(q, k, v, m)"), attention(allowed, shown), m=bias)


def test_layers_share_what_their_mask_becomes() -> None:
    body = "a = Attention(q, k, k, m) y = Attention(a, k, v, m)"
    model = parse(f"({QKV}, bool[batch, 1, s, t] m) => (float[batch, 2, s, 3] y)", body)
    WriteOutAttention()(model)
    assert operators(model)["Softmax"] == 2
    assert operators(model)["ReduceSum"] == 1


@pytest.mark.parametrize("node", ["Attention<softcap = 3.0>(q, k, v)", "Attention(q, g, g)"])
def test_forms_that_are_not_written_out_stay(node: str) -> None:
    signature = f"({QKV}, float[batch, 1, t, 4] g) => (float[batch, 2, s, d] y)"
    assert not WriteOutAttention()(parse(signature, f"y = {node}")).modified
