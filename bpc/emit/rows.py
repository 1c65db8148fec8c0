"""Token-wise parts of the graph as matrices of rows: (B, S, C) becomes (B*S, C)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import add_initializer, constant, insert, remove_dead, replace, same_dims, static_dim

# Operators that treat every row (last dimension) by itself; LayerNormalization only over the last axis.
_ROW_WISE = ("Add", "Sub", "Mul", "Sum", "Gelu", "Relu", "Tanh", "Sigmoid", "Erf", "Div", "LayerNormalization")


class FlattenRows(InPlacePass):
    """f(x: (B, S, C)) -> Reshape(f(Reshape(x, (-1, C))), (B, S, C')) for linear layers and row-wise operators.

    Neighbouring reshapes cancel, so that the encoder runs on matrices between two attentions. ONNX Runtime then
    takes MatMul + Add as one Gemm, and its SkipLayerNormalization fusion (3-D only) leaves the residuals alone.
    Reshape copies nothing.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Flatten all rows of the main graph."""
        flat = _FlatValues(model.graph)
        modified = False
        for node in list(model.graph):
            data = _row_inputs(node)
            if not data:
                continue
            inputs = list(node.inputs)
            for index in data:
                value = inputs[index]
                assert value is not None
                inputs[index] = flat.rows_of(value, node)
            out = node.outputs[0]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            if "axis" in attributes:
                attributes["axis"] = -1
            width = static_dim(out, 2)
            rows = insert(node, node.op_type, inputs, shape=[None, width], dtype=out.dtype, attributes=attributes)
            first = node.inputs[data[0]]
            assert first is not None
            restored = insert(node, "Reshape", [rows, flat.leading_of(first, width, node)], like=out)
            flat.remember(restored, rows, of=first)
            replace(out, restored)
            modified = True
        remove_dead(model)
        return PassResult(model, modified)


def _row_inputs(node: ir.Node) -> list[int]:
    """Indices of the (B, S, C) inputs of a node that works row by row; [] for any other node."""
    if node.domain or len(node.outputs) != 1 or len(node.inputs) == 0:
        return []
    if node.op_type == "MatMul":
        weight = constant(node.inputs[1])
        return [0] if weight is not None and weight.ndim == 2 and _is_rows(node.inputs[0]) else []
    if node.op_type not in _ROW_WISE:
        return []
    if node.op_type == "LayerNormalization" and node.attributes.get_int("axis", -1) not in (-1, 2):
        return []
    data = [i for i, v in enumerate(node.inputs) if v is not None and v.const_value is None]
    values = [node.inputs[i] for i in data]
    if not data or not all(_is_rows(v) for v in values):
        return []
    if not all(same_dims(values[0], v, (0, 1, 2)) for v in values):  # type: ignore[arg-type]
        return []
    others = [constant(v) for i, v in enumerate(node.inputs) if i not in data and v is not None]
    return data if all(a is not None and a.ndim <= 1 for a in others) else []


def _is_rows(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is None and value.shape is not None and len(value.shape) == 3


class _FlatValues:
    """The flat form of each 3-D value, and where to read its (B, S) from."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._rows: dict[ir.Value, ir.Value] = {}
        self._source: dict[ir.Value, ir.Value] = {}
        self._leading: dict[ir.Value, ir.Value] = {}

    def rows_of(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """``value`` as (B*S, C)."""
        if value not in self._rows:
            width = static_dim(value, 2)
            target = add_initializer(self._graph, f"{value.name}.rows", np.array([-1, width or 0], np.int64))
            self._rows[value] = insert(before, "Reshape", [value, target], shape=[None, width], dtype=value.dtype)
            self._source[value] = value
        return self._rows[value]

    def leading_of(self, value: ir.Value, width: int | None, before: ir.Node) -> ir.Value:
        """The shape (B, S, -1) to restore a value that came from ``value``."""
        source = self._source[value]
        if source not in self._leading:
            sizes = insert(
                before, "Shape", [source], shape=[2], dtype=ir.DataType.INT64, attributes={"start": 0, "end": 2}
            )
            rest = add_initializer(self._graph, f"{source.name}.rest", np.array([-1], np.int64))
            self._leading[source] = insert(
                before, "Concat", [sizes, rest], shape=[3], dtype=ir.DataType.INT64, attributes={"axis": 0}
            )
        return self._leading[source]

    def remember(self, value: ir.Value, rows: ir.Value, of: ir.Value) -> None:
        """``rows`` is the flat form of ``value``, whose (B, S) is that of ``of``."""
        self._rows[value] = rows
        self._source[value] = self._source[of]
