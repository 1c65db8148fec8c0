"""Attention as products and a softmax, in operators of every opset.

torch.onnx writes opset 23's ``Attention``. ONNX Runtime runs it, but its tools (symbolic shape inference,
quant_pre_process, quantize_dynamic) know operators by name alone and take it for ``com.microsoft.Attention``, whose
second input is a weight (docs/decisions/0005-files-for-other-tools.md). No written file has it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import add_initializer, insert, remove_dead, replace, static_dim


class WriteOutAttention(InPlacePass):
    """Attention(q, k, v, mask) -> softmax(scale · q kᵀ, masked) v, for q (B, H, S, D), k (B, H, T, D), v (B, H, T, Dv).

    Every remaining node of the main graph. A query that sees no key gets 0, as under torch. Left alone: forms that
    torch.onnx does not write (rank 3, caches, soft caps).
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every such node."""
        modified = False
        masks = Masks(model)
        for node in list(model.graph):
            if node.op_type != "Attention" or node.domain or not _is_plain(node):
                continue
            replace(node.outputs[0], _products(node, masks))
            modified = True
        remove_dead(model)
        return PassResult(model, modified)


def _is_plain(node: ir.Node) -> bool:
    softcap = node.attributes.get_float("softcap", 0.0)
    if len(node.inputs) > 4 or len(node.outputs) != 1 or softcap:
        return False
    if not all(v is not None and v.shape is not None and len(v.shape) == 4 for v in node.inputs[:3]):
        return False
    query, key = node.inputs[:2]
    return static_dim(query, 3) is not None and static_dim(query, 1) == static_dim(key, 1)


def _products(node: ir.Node, masks: Masks) -> ir.Value:
    query, key, value = node.inputs[:3]
    size = static_dim(query, 3)
    assert query is not None
    assert key is not None
    assert query.shape is not None
    assert key.shape is not None
    assert query.dtype is not None
    assert size is not None
    (batch, heads, queries, dim), dtype = query.shape, query.dtype
    scale = node.attributes.get_float("scale", None) or size**-0.5
    factor = masks.constant(f"scale_{scale:.6g}", np.array(scale, dtype.numpy()))
    scaled = insert(node, "Mul", [query, factor], like=query)
    turned = insert(node, "Transpose", [key], dtype=dtype, attributes={"perm": [0, 1, 3, 2]})
    turned.shape = ir.Shape([*key.shape[:2], dim, key.shape[2]])
    shape = [batch, heads, queries, key.shape[2]]
    scores = insert(node, "MatMul", [scaled, turned], shape=shape, dtype=dtype)
    causal = bool(node.attributes.get_int("is_causal", 0))
    mask = masks.causal(query, key, node) if causal else node.inputs[3] if len(node.inputs) > 3 else None
    if mask is not None:
        scores = masks.applied(scores, mask, node)
    weights = insert(node, "Softmax", [scores], like=scores, attributes={"axis": -1})
    output = insert(node, "MatMul", [weights, value], like=node.outputs[0])
    if mask is None or causal:  # every query sees a key
        return output
    return insert(node, "Mul", [output, masks.seen(mask, dtype, node)], like=node.outputs[0])


class Masks:
    """Masks of attention scores: bool (True = attend) or additive float. What is computed from one is shared."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def additive(self, mask: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        """``mask`` as numbers to add to scores: finite, so that a row without any key is no NaN."""
        place = (mask, "additive")
        if place not in self._made:
            never = self._lowest(dtype)
            if mask.dtype == ir.DataType.BOOL:
                zero = self.constant("attend", np.array(0.0, dtype.numpy()))
                self._made[place] = insert(before, "Where", [mask, zero, never], like=mask, dtype=dtype)
            else:
                self._made[place] = insert(before, "Max", [mask, never], like=mask)
        return self._made[place]

    def applied(self, scores: ir.Value, mask: ir.Value, before: ir.Node) -> ir.Value:
        """The scores under ``mask``."""
        assert scores.dtype is not None
        if mask.dtype == ir.DataType.BOOL:
            return insert(before, "Where", [mask, scores, self._lowest(scores.dtype)], like=scores)
        return insert(before, "Add", [scores, self.additive(mask, scores.dtype, before)], like=scores)

    def seen(self, mask: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        """1 for every query (second last dim) that sees a key, else 0; the last dim is 1."""
        place = (mask, "seen")
        if place not in self._made:
            assert mask.shape is not None
            assert mask.dtype is not None
            shape, boolean, shown = [*list(mask.shape)[:-1], 1], ir.DataType.BOOL, mask
            if mask.dtype != boolean:
                nothing = self.constant("hidden", np.array(-np.inf, mask.dtype.numpy()))
                shown = insert(before, "Greater", [mask, nothing], like=mask, dtype=boolean)
            axes = self.constant("last_axis", np.array([-1]))
            ones = insert(before, "Cast", [shown], like=mask, dtype=dtype, attributes={"to": dtype.value})
            # A sum: of all reductions, symbolic shape inference knows the axes of this one.
            count = insert(before, "ReduceSum", [ones, axes], shape=shape, dtype=dtype)
            some = insert(before, "Cast", [count], shape=shape, dtype=boolean, attributes={"to": boolean.value})
            self._made[place] = insert(before, "Cast", [some], shape=shape, dtype=dtype, attributes={"to": dtype.value})
        return self._made[place]

    def seen_rows(self, mask: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        """`seen`, (B, S, 1), of a mask (B, 1, S, T)."""
        place = (mask, "rows")
        if place not in self._made:
            seen = self.seen(mask, dtype, before)
            assert seen.shape is not None
            axes = self.constant("heads_axis", np.array([1]))
            shape = [seen.shape[i] for i in (0, 2, 3)]
            self._made[place] = insert(before, "Squeeze", [seen, axes], shape=shape, dtype=dtype)
        return self._made[place]

    def causal(self, query: ir.Value, key: ir.Value, before: ir.Node) -> ir.Value:
        """(S, T) bool: query i sees keys 0 to i."""
        rows, columns = (self._positions(v, before) for v in (query, key))
        place = (rows, columns, "causal")
        if place not in self._made:
            assert rows.shape is not None
            assert columns.shape is not None
            axis = self.constant("last_axis", np.array([-1]))
            turned = insert(before, "Unsqueeze", [rows, axis], shape=[rows.shape[0], 1], dtype=ir.DataType.INT64)
            shape = [rows.shape[0], columns.shape[0]]
            self._made[place] = insert(before, "GreaterOrEqual", [turned, columns], shape=shape, dtype=ir.DataType.BOOL)
        return self._made[place]

    def _positions(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """0, 1, … along the second last dim of a (B, H, S, D) value."""
        assert value.shape is not None
        size = value.shape[2]
        if isinstance(size, int):
            return self.constant(f"positions_{size}", np.arange(size))
        place = (size.value or value, "positions")
        if place not in self._made:
            int64 = ir.DataType.INT64
            count = insert(before, "Shape", [value], shape=[1], dtype=int64, attributes={"start": 2, "end": 3})
            stop = insert(before, "Squeeze", [count], shape=[], dtype=int64)
            ends = [self.constant("zero", np.array(0)), stop, self.constant("one", np.array(1))]
            self._made[place] = insert(before, "Range", ends, shape=[size], dtype=int64)
        return self._made[place]

    def _lowest(self, dtype: ir.DataType) -> ir.Value:
        kind = np.float16 if dtype == ir.DataType.FLOAT16 else np.float32
        return self.constant("never", np.array(np.finfo(kind).min, dtype.numpy()))

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """One constant of the graph per name and dtype."""
        place = (name, array.dtype)
        if place not in self._made:
            self._made[place] = add_initializer(self._graph, f"mask.{name}", array)
        return self._made[place]
