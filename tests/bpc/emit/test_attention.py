"""Attention cores, and the fused operators that take them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bpc.emit.attention import MultiHeadAttention, PackedAttention, attention_cores
from tests.bpc.emit.models import numbers, operators, parse, run

SPLIT = {"heads": np.array([0, 0, 2, 4]), "merged": np.array([0, 0, 8])}
WEIGHTS = SPLIT | {name: numbers(8, 8, seed=index) for index, name in enumerate("abc")}


def core(attention: str = "Attention(q, k, v, m)", mask: str = "bool[batch, 1, s, s] m") -> ir.Model:
    """Self-attention of 2 heads of 4 dims, projections and all."""
    parts = [
        f"{n}p = MatMul(x, {w}) {n}h = Reshape({n}p, heads) {n} = Transpose<perm = [0, 2, 1, 3]>({n}h)"
        for n, w in zip("qkv", "abc", strict=True)
    ]
    merge = "t = Transpose<perm = [0, 2, 1, 3]>(o) y = Reshape(t, merged)"
    signature = f"(float[batch, s, 8] x, {mask}) => (float[batch, s, 8] y)"
    return parse(signature, " ".join([*parts, f"o = {attention}", merge]), WEIGHTS)


def test_a_core_reaches_from_the_head_split_to_the_merge() -> None:
    (found,) = attention_cores(core())
    assert (found.heads, found.scale, found.causal) == (2, 0.5, False)
    assert [v.name for v in (found.query, found.key, found.value, found.output)] == ["qp", "kp", "vp", "y"]
    assert found.mask is not None
    assert found.mask.name == "m"


def test_every_layer_of_a_model_has_a_core_of_its_own_heads(exported: ir.Model) -> None:
    assert [found.heads for found in attention_cores(exported)] == [3, 1]


@pytest.mark.parametrize(
    ("fuse", "operator", "products"),
    [(MultiHeadAttention(), "MultiHeadAttention", 3), (PackedAttention(), "Attention", 0)],
)
def test_a_fused_core_computes_the_same_and_hides_whole_rows(
    fuse: MultiHeadAttention | PackedAttention, operator: str, products: int
) -> None:
    model, x = core(), numbers(2, 4, 8)
    mask = np.tril(np.ones((2, 1, 4, 4), bool))
    mask[1, 0, 2] = False  # this query sees no key
    before = run(model, x=x, m=mask)[0]
    assert fuse(model).modified
    assert operators(model)[f"com.microsoft.{operator}"] == 1
    assert (operators(model)["Transpose"], operators(model)["MatMul"]) == (0, products)
    after = run(model, x=x, m=mask)[0]
    assert (after[1, 2] == 0).all()
    seen = mask.any(-1)[:, 0]
    np.testing.assert_allclose(after[seen], before[seen], rtol=1e-4, atol=1e-5)
    assert not fuse(model).modified


@pytest.mark.parametrize(
    "model",
    [core("Attention<is_causal = 1>(q, k, v)"), core(mask="bool[batch, 2, s, s] m"), core(mask="bool[s, s] m")],
    ids=["causal", "a mask per head", "a mask of rank 2"],
)
def test_cores_the_kernels_read_otherwise_stay(model: ir.Model) -> None:
    assert not MultiHeadAttention()(model).modified
    assert not PackedAttention()(model).modified
    assert len(list(attention_cores(model))) == 1


def test_a_soft_cap_is_no_core() -> None:
    assert not list(attention_cores(core("Attention<softcap = 2.0>(q, k, v, m)")))
