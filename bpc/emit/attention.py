"""Attention cores of an exported graph, and the forms ONNX Runtime has for them.

A core is what ``torch.onnx`` writes for ``scaled_dot_product_attention`` between its head split and head merge::

    q, k, v: (B, S, H*D) --Reshape--> (B, S, H, D) --Transpose--> (B, H, S, D)
    Attention(q, k, v, mask) --Transpose--> (B, S, H, D) --Reshape--> (B, S, H*D)

The same function without the transposes, in either of two operators:

* `MultiHeadAttention`: ONNX Runtime's ``com.microsoft.MultiHeadAttention`` (flash attention on CUDA);
* `PackedAttention`: ``com.microsoft.Attention``, which also does the Q, K and V projections, from one packed weight.

A core that does not look like this (rotary embeddings between split and product, grouped queries, attention written
out) is left as it is: the passes report ``modified=False`` for it, and `bpc.emit.products` writes it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import (
    MICROSOFT,
    add_initializer,
    insert,
    only_user,
    producer,
    remove_dead,
    replace,
    same_dims,
    static_dim,
)
from bpc.emit.linear import Projection, projection
from bpc.emit.products import Masks

_HEADS_AND_ROWS = [0, 2, 1, 3]  # (B, S, H, D) <-> (B, H, S, D)


@dataclass(frozen=True)
class AttentionCore:
    """One attention between its head split and its head merge."""

    node: ir.Node
    query: ir.Value  # (B, S, H*D), before the head split
    key: ir.Value  # (B, T, H*D)
    value: ir.Value  # (B, T, H*Dv)
    mask: ir.Value | None  # broadcast to (B, H, S, T): bool (True = attend) or additive float
    output: ir.Value  # (B, S, H*Dv), after the head merge
    merge: ir.Node  # computes output
    heads: int
    scale: float

    @property
    def causal(self) -> bool:
        return bool(self.node.attributes.get_int("is_causal", 0))


def attention_cores(model: ir.Model) -> Iterator[AttentionCore]:
    """The cores of the main graph, in order."""
    for node in list(model.graph):
        core = _core(node)
        if core is not None:
            yield core


def _core(node: ir.Node) -> AttentionCore | None:
    if node.op_type != "Attention" or node.domain or len(node.inputs) > 4 or len(node.outputs) != 1:
        return None
    query, key, value = (_before_head_split(v) for v in node.inputs[:3])
    merged = _after_head_merge(node.outputs[0])
    heads, dim = static_dim(node.inputs[0], 1), static_dim(node.inputs[0], 3)
    if query is None or key is None or value is None or merged is None or heads is None or dim is None:
        return None
    if any(v is None or static_dim(v, 1) != heads for v in node.inputs[1:3]):
        return None  # grouped queries
    if node.attributes.get_float("softcap", 0.0) or node.attributes.get_int("qk_matmul_output_mode", 0):
        return None
    mask = node.inputs[3] if len(node.inputs) == 4 else None
    scale = node.attributes.get_float("scale", None) or dim**-0.5
    return AttentionCore(node, query, key, value, mask, merged.outputs[0], merged, heads, scale)


def _before_head_split(value: ir.Value | None) -> ir.Value | None:
    """x (B, S, H*D) where ``value`` is Transpose(Reshape(x))."""
    transpose = producer(value, "Transpose")
    if transpose is None or list(transpose.attributes.get_ints("perm", [])) != _HEADS_AND_ROWS:
        return None
    reshape = producer(transpose.inputs[0], "Reshape")
    rows = reshape.inputs[0] if reshape is not None else None
    if rows is None or rows.shape is None or len(rows.shape) != 3 or static_dim(rows, 2) is None:
        return None
    heads, dim = static_dim(transpose.inputs[0], 2), static_dim(transpose.inputs[0], 3)
    return rows if heads is not None and dim is not None and heads * dim == static_dim(rows, 2) else None


def _after_head_merge(value: ir.Value) -> ir.Node | None:
    """The Reshape that makes (B, S, H*D), where the only reader of ``value`` is Reshape(Transpose(value))."""
    same = only_user(value, "Reshape")  # torch.export views a single head's output as itself
    if same is not None and same_dims(value, same.outputs[0], (0, 1, 2, 3)):
        value = same.outputs[0]
    transpose = only_user(value, "Transpose")
    if transpose is None or list(transpose.attributes.get_ints("perm", [])) != _HEADS_AND_ROWS:
        return None
    reshape = only_user(transpose.outputs[0], "Reshape")
    heads, dim = (static_dim(transpose.outputs[0], axis) for axis in (2, 3))
    if reshape is None or heads is None or dim is None:
        return None
    merged = reshape.outputs[0]
    if merged.shape is None or len(merged.shape) != 3 or static_dim(merged, 2) != heads * dim:
        return None
    return reshape


class MultiHeadAttention(InPlacePass):
    """Attention(split(q), split(k), split(v)), merged -> com.microsoft.MultiHeadAttention(q, k, v, bias).

    A bool mask becomes an additive one, computed once for all layers that share it. Refuses causal cores whose
    query and key lengths may differ (``unidirectional`` aligns to the end, ONNX's ``is_causal`` to the start), and
    masks of their own for each head.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every core."""
        modified = False
        masks = Masks(model)
        for core in attention_cores(model):
            if not _usable(core):
                continue
            inputs = [core.query, core.key, core.value, None, None, _bias(core, masks)]
            attributes = {"num_heads": core.heads, "scale": core.scale}
            fused = insert(
                core.merge, "MultiHeadAttention", inputs, like=core.output, domain=MICROSOFT, attributes=attributes
            )
            replace(core.output, _masked(core, fused, masks))
            modified = True
        remove_dead(model)
        return PassResult(model, modified)


class PackedAttention(InPlacePass):
    """Attention(x Wq + bq, x Wk + bk, x Wv + bv) -> com.microsoft.Attention(x, [Wq Wk Wv], [bq bk bv], mask).

    The kernel writes the three projections straight into the layout the product reads. Refuses cores whose
    projections read different tensors (cross-attention), and causal ones.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every core whose three projections read one tensor."""
        modified = False
        masks = Masks(model)
        for index, core in enumerate(attention_cores(model)):
            parts = [projection(v) for v in (core.query, core.key, core.value)]
            if not _usable(core) or any(p is None for p in parts):
                continue
            found: list[Projection] = [p for p in parts if p is not None]
            if len({id(p.input) for p in found}) != 1:
                continue
            packed = np.concatenate([p.matrix() for p in found], axis=1)
            weight = add_initializer(model.graph, f"attention_{index}.weight", packed)
            bias = add_initializer(model.graph, f"attention_{index}.bias", np.concatenate([p.bias() for p in found]))
            inputs = [found[0].input, weight, bias, None, None, _bias(core, masks)]
            sizes = [p.features for p in found]
            attributes = {"num_heads": core.heads, "scale": core.scale, "qkv_hidden_sizes": sizes}
            fused = insert(core.merge, "Attention", inputs, like=core.output, domain=MICROSOFT, attributes=attributes)
            replace(core.output, _masked(core, fused, masks))
            modified = True
        remove_dead(model)
        return PassResult(model, modified)


def _usable(core: AttentionCore) -> bool:
    """The fused kernels' masks are of rank 4; one per head could hide all keys from a query in one head alone."""
    mask = core.mask
    rank4 = mask is None or (mask.shape is not None and len(mask.shape) == 4 and mask.shape[1] == 1)
    return not core.causal and rank4


def _bias(core: AttentionCore, masks: Masks) -> ir.Value | None:
    if core.mask is None:
        return None
    assert core.query.dtype is not None
    return masks.additive(core.mask, core.query.dtype, core.merge)


def _masked(core: AttentionCore, fused: ir.Value, masks: Masks) -> ir.Value:
    """``fused`` (B, S, H*Dv), with 0 for queries that see no key (the kernels give them a mean of the values)."""
    if core.mask is None:
        return fused
    assert core.query.dtype is not None
    return insert(
        core.merge, "Mul", [fused, masks.seen_rows(core.mask, core.query.dtype, core.merge)], like=core.output
    )
