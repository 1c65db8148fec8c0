"""Half-precision graphs: every float32 tensor becomes float16 or bfloat16, inputs and outputs stay float32.

ONNX Runtime's own converter knows float16 only, so the conversion is a pass of ours, the same for both. Precision is
kept where it is lost fastest: normalisations accumulate in float32 (their ``stash_type``), and the fused attention
kernels compute their softmax in float32.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import insert

_NUMPY = {ir.DataType.FLOAT16: np.dtype(np.float16), ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}


class ConvertFloats(InPlacePass):
    """float32 -> ``dtype`` for weights, constants, casts and shapes' annotations; casts at float inputs and outputs."""

    def __init__(self, dtype: ir.DataType) -> None:
        super().__init__()
        if dtype not in _NUMPY:
            raise ValueError(f"{dtype.name} is no half precision; choose FLOAT16 or BFLOAT16")
        self._dtype = dtype

    def call(self, model: ir.Model) -> PassResult:
        """Convert the main graph."""
        graph = model.graph
        modified = False
        for value in graph.initializers.values():
            if value.const_value is not None and value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.tensor(self._narrow(value.const_value.numpy()), name=value.name)
                value.type = ir.TensorType(self._dtype)  # a new object: clones share theirs
                modified = True
        for node in graph:
            if self._restores_output(node):
                continue
            for attribute in list(node.attributes.values()):
                self._convert_attribute(node, attribute)
            for output in node.outputs:
                if output.dtype == ir.DataType.FLOAT:
                    output.type = ir.TensorType(self._dtype)
                    modified = True
        for value in graph.inputs:
            if value.dtype == ir.DataType.FLOAT:
                self._cast_input(graph, value)
        for index, value in enumerate(graph.outputs):
            if value.dtype == self._dtype:
                self._cast_output(graph, index, value)
        return PassResult(model, modified)

    def _restores_output(self, node: ir.Node) -> bool:
        """The cast back to float32 at an output, from an earlier run of this pass."""
        source = node.inputs[0] if node.op_type == "Cast" else None
        return source is not None and source.dtype == self._dtype and node.outputs[0].is_graph_output()

    def _narrow(self, array: np.ndarray) -> np.ndarray:
        """Finite numbers stay finite (the lowest float32, which masks scores, is beyond float16)."""
        kind = _NUMPY[self._dtype]
        limit = float(ml_dtypes.finfo(kind).max)
        return np.where(np.isfinite(array), np.clip(array, -limit, limit), array).astype(kind)

    def _convert_attribute(self, node: ir.Node, attribute: ir.Attr) -> None:
        if attribute.name == "to" and node.op_type == "Cast" and attribute.value == ir.DataType.FLOAT.value:
            node.attributes["to"] = ir.AttrInt64("to", self._dtype.value)
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == ir.DataType.FLOAT:
            tensor = ir.tensor(self._narrow(attribute.value.numpy()), name=attribute.value.name)
            node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor)

    def _cast_input(self, graph: ir.Graph, value: ir.Value) -> None:
        uses = list(value.uses())
        order = list(graph)
        first = min((use.node for use in uses), key=order.index)
        narrow = insert(first, "Cast", [value], like=value, dtype=self._dtype, attributes={"to": self._dtype.value})
        for use in uses:
            use.node.replace_input_with(use.idx, narrow)

    def _cast_output(self, graph: ir.Graph, index: int, value: ir.Value) -> None:
        """The output keeps its name and its float32."""
        name = value.name
        value.name = f"{name}_half"
        to = {"to": ir.AttrInt64("to", ir.DataType.FLOAT.value)}
        cast = ir.Node("", "Cast", [value], attributes=to.values())
        wide = cast.outputs[0]
        wide.name, wide.shape, wide.dtype = name, value.shape, ir.DataType.FLOAT
        graph.append(cast)
        graph.outputs[index] = wide
