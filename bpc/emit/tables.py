"""Tables read up to a length: positions, token types, causal masks kept as buffers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import add_initializer, constant, insert, remove_dead, replace


class IndexTables(InPlacePass):
    """Slice(table, 0, n) -> Gather(table, Range(0, n)) along one axis, for a constant table and a dynamic length n.

    The exporter has proved that n fits into the table, so that the result has n entries; of a Slice, other tools only
    know that it has min(n, size of the table), which then fits nothing. A longer input is an error of Gather, where
    Slice would cut it off. Left alone: lengths that are not a plain dynamic size.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every such slice of the main graph."""
        modified = False
        for node in list(model.graph):
            axis = _table_axis(node)
            if axis is None:
                continue
            table, end, out = node.inputs[0], node.inputs[2], node.outputs[0]
            assert table is not None
            assert out.shape is not None
            int64 = ir.DataType.INT64
            stop = insert(node, "Squeeze", [end], shape=[], dtype=int64)
            ends = [add_initializer(model.graph, f"{out.name}.{n}", np.array(v)) for n, v in (("from", 0), ("step", 1))]
            positions = insert(node, "Range", [ends[0], stop, ends[1]], shape=[out.shape[axis]], dtype=int64)
            replace(out, insert(node, "Gather", [table, positions], like=out, attributes={"axis": axis}))
            modified = True
        remove_dead(model)
        return PassResult(model, modified)


def _table_axis(node: ir.Node) -> int | None:
    """The axis along which a node cuts a table to a dynamic length; None for any other node."""
    if node.op_type != "Slice" or node.domain or node.inputs[0] is None or node.inputs[0].const_value is None:
        return None
    start, axes = constant(node.inputs[1]), constant(node.inputs[3] if len(node.inputs) > 3 else None)
    step = constant(node.inputs[4]) if len(node.inputs) > 4 else np.array([1])
    shape = node.outputs[0].shape
    if start is None or axes is None or step is None or shape is None or axes.size != 1:
        return None
    axis = int(axes[0]) % len(shape)
    size = shape[axis]
    is_length = isinstance(size, ir.SymbolicDim) and size.value is not None and size.value.isidentifier()
    return axis if is_length and start.tolist() == [0] and step.tolist() == [1] else None
