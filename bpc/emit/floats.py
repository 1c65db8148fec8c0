"""Half-precision graphs: every float32 tensor becomes float16 or bfloat16, inputs and outputs stay float32.

ONNX Runtime's own converter knows float16 only, so the conversion is a pass of ours, the same for both. Precision is
kept where it is lost fastest: normalisations accumulate in float32 (their ``stash_type``), the fused attention
kernels compute their softmax in float32, and positions and counts stay float32 (`bpc.emit.exact_floats`). So does what
TopK compares, which has no bfloat16.
"""

from __future__ import annotations

from collections.abc import Set

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.exact_floats import exact_nodes
from bpc.emit.ir_tools import add_initializer, insert

_NUMPY = {ir.DataType.FLOAT16: np.dtype(np.float16), ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}


class ConvertFloats(InPlacePass):
    """float32 -> ``dtype`` for weights, constants, casts and annotations; casts at float inputs and outputs, and around
    what stays float32.
    """

    def __init__(self, dtype: ir.DataType) -> None:
        super().__init__()
        if dtype not in _NUMPY:
            raise ValueError(f"{dtype.name} is no half precision; choose FLOAT16 or BFLOAT16")
        self._dtype = dtype

    def call(self, model: ir.Model) -> PassResult:
        """Convert the main graph."""
        graph = model.graph
        modified = False
        wide = exact_nodes(graph) | {node for node in graph if (node.op_type, node.domain) == ("TopK", "")}
        kept = self._enclose(graph, wide)
        for value in graph.initializers.values():
            if value.const_value is not None and value.dtype == ir.DataType.FLOAT and value not in kept:
                value.const_value = ir.tensor(self._narrow(value.const_value.numpy()), name=value.name)
                value.type = ir.TensorType(self._dtype)  # a new object: clones share theirs
                modified = True
        for node in graph:
            if node in wide or self._restores(node):
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

    def _restores(self, node: ir.Node) -> bool:
        """A cast back to float32, at an output or before what stays float32."""
        source = node.inputs[0] if node.op_type == "Cast" else None
        return source is not None and self._dtype == source.dtype and node.outputs[0].dtype == ir.DataType.FLOAT

    def _enclose(self, graph: ir.Graph, wide: Set[ir.Node]) -> frozenset[ir.Value]:
        """Let ``wide`` nodes read and yield float32, others what they would. The constants that stay float32."""
        own: dict[ir.Value, ir.Value] = {}
        for node in wide:
            for position, value in enumerate(node.inputs):
                if value is None or value.dtype != ir.DataType.FLOAT or value.producer() in wide:
                    continue
                if value.is_initializer():
                    if value not in own:
                        alone = all(use.node in wide for use in value.uses())
                        own[value] = value if alone else _copied(graph, value)
                    node.replace_input_with(position, own[value])
                elif not self._restores_value(value):
                    node.replace_input_with(position, _cast(node, value, ir.DataType.FLOAT))
            for value in node.outputs:
                others = [use for use in value.uses() if use.node not in wide and not self._narrows(use.node)]
                if value.dtype == ir.DataType.FLOAT and others:
                    order = list(graph)
                    narrow = _cast(min((use.node for use in others), key=order.index), value, self._dtype)
                    for use in others:
                        use.node.replace_input_with(use.idx, narrow)
        return frozenset(own.values())

    def _restores_value(self, value: ir.Value) -> bool:
        producer = value.producer()
        return producer is not None and self._restores(producer)

    def _narrows(self, node: ir.Node) -> bool:
        return node.op_type == "Cast" and node.outputs[0].dtype == self._dtype

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
        narrow = _cast(first, value, self._dtype)
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


def _cast(before: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    return insert(before, "Cast", [value], like=value, dtype=dtype, attributes={"to": dtype.value})


def _copied(graph: ir.Graph, value: ir.Value) -> ir.Value:
    assert value.const_value is not None
    return add_initializer(graph, f"{value.name}_float32", value.const_value.numpy())
