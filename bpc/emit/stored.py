"""Weights stored in float16 and computed in float32."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import insert

Storage = Literal["float32", "float16"]

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_FEW = 4_096  # numbers; smaller constants (biases, norms, epsilons, frequencies) save nothing


class StoreHalf(InPlacePass):
    """f(w) -> f(Cast(w as float16)), computed in float32; Gather(w, ids) -> Cast(Gather(w as float16, ids)).

    ONNX Runtime folds the Cast of a constant when it loads the file. Left alone: constants under 4,096 numbers and
    quantizers' own. ``kept`` names those that float16 would change by more than its rounding, and says why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, str] = {}

    def call(self, model: ir.Model) -> PassResult:
        """Store every large float32 constant of the main graph as float16."""
        modified = False
        for name, value in list(model.graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.dtype != _FLOAT or tensor.size < _FEW or value.is_graph_output():
                continue
            uses = list(value.uses())
            if any(use.node.op_type in ("QuantizeLinear", "DequantizeLinear") for use in uses):
                continue
            numbers = tensor.numpy()
            reason = _refusal(numbers)
            if reason:
                self.kept[name] = reason
                continue
            value.const_value = ir.tensor(numbers.astype(np.float16), name=name)
            value.type = ir.TensorType(_HALF)  # a new object: clones share theirs
            rest = [use for use in uses if not _is_lookup(use.node, value)]
            for node in dict.fromkeys(use.node for use in uses):
                if _is_lookup(node, value):
                    _cast_rows(node)
            if rest:
                attributes = {"to": _FLOAT.value}
                wide = insert(model.graph[0], "Cast", [value], like=value, dtype=_FLOAT, attributes=attributes)
                for use in rest:
                    use.node.replace_input_with(use.idx, wide)
            modified = True
        return PassResult(model, modified)


def _is_lookup(node: ir.Node, table: ir.Value) -> bool:
    return (node.op_type, node.domain) == ("Gather", "") and node.inputs[0] is table


def _cast_rows(gather: ir.Node) -> None:
    out, graph = gather.outputs[0], gather.graph
    assert graph is not None
    name, is_output = out.name, out.is_graph_output()
    cast = ir.node("Cast", [out], attributes={"to": _FLOAT.value})
    wide = cast.outputs[0]
    wide.shape, wide.type = out.shape, ir.TensorType(_FLOAT)
    out.replace_all_uses_with(wide, replace_graph_outputs=True)
    cast.replace_input_with(0, out)  # it was a use, too
    out.type = ir.TensorType(_HALF)
    if is_output:
        out.name, wide.name = f"{name}_half", name
    graph.insert_after(gather, cast)


def _refusal(numbers: np.ndarray) -> str:
    """Why float16 does not hold ``numbers``; "" where it does, up to its rounding."""
    with np.errstate(over="ignore"):
        half = numbers.astype(np.float16)
    finite = np.isfinite(numbers)
    if not np.isfinite(half[finite]).all():
        return f"holds {np.abs(numbers[finite]).max():.3g}, beyond float16's 65504"
    exact, rounded = numbers[finite], half[finite].astype(np.float32)
    if np.array_equal(exact, np.rint(exact)) and not np.array_equal(exact, rounded):
        return "holds whole numbers over 2048, which float16 rounds"
    size, error = (
        float(np.sqrt(np.square(a, dtype=np.float64).mean())) if a.size else 0.0 for a in (exact, exact - rounded)
    )
    if error > size * 2.0**-11:
        return f"holds numbers around {size:.1g}, too small for float16"
    return ""
