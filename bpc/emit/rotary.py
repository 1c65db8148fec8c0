"""RotaryEmbedding as ONNX Runtime reads it: its cos and sin caches have the batch of what they rotate.

torch.onnx fuses ``x · cos + rotate(x) · sin`` into RotaryEmbedding also where one row of angles serves the whole batch,
as transformers' decoders have it; the operator's specification, and ONNX Runtime, do not broadcast.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import add_initializer, insert


class ExpandRotaryCaches(InPlacePass):
    """RotaryEmbedding(x, cos, sin) -> RotaryEmbedding(x, Expand(cos, [batch, 1, 1]), Expand(sin, [batch, 1, 1])).

    Left alone: caches looked up by position ids, and caches whose batch is known to be that of x.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Expand the caches of every such node; an expanded cache serves all nodes that read it."""
        wide: dict[tuple[ir.Value, str], ir.Value] = {}
        for node in list(model.graph):
            x = node.inputs[0] if node.inputs else None
            if (node.op_type, node.domain) != ("RotaryEmbedding", "") or x is None or x.shape is None:
                continue
            if len(node.inputs) > 3 and node.inputs[3] is not None:
                continue
            for position in (1, 2):
                cache = node.inputs[position]
                if cache is None or _batch(cache) == _batch(x):
                    continue
                key = (cache, str(_batch(x)))
                if key not in wide:
                    wide[key] = _expand(model.graph, node, cache, x)
                node.replace_input_with(position, wide[key])
        return PassResult(model, bool(wide))


def _batch(value: ir.Value) -> str:
    return "" if value.shape is None else str(value.shape[0])


def _expand(graph: ir.Graph, node: ir.Node, cache: ir.Value, x: ir.Value) -> ir.Value:
    batch = insert(node, "Shape", [x], shape=[1], dtype=ir.DataType.INT64, attributes={"start": 0, "end": 1})
    ones = add_initializer(graph, "rotary_ones", np.ones(2, np.int64))
    sizes = insert(node, "Concat", [batch, ones], shape=[3], dtype=ir.DataType.INT64, attributes={"axis": 0})
    wide = insert(node, "Expand", [cache, sizes], dtype=cache.dtype or x.dtype)
    if cache.shape is not None and x.shape is not None:
        wide.shape = ir.Shape([x.shape[0], *cache.shape.dims[1:]])
    return wide
