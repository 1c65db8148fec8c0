"""Grouped products (stacked experts) for ONNX, which has none: rows of a group are cut out, one product for each group.

    y = [x[0:e_0] W_0; x[e_0:e_1] W_1; …; zeros],     e = ends of the groups

As many multiplications as in torch: every row meets one matrix. A group without rows is a product of no rows. The
matrices are constants of their own (`SplitStacks`), so that quantization sees linear layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import InPlacePass, PassResult
from onnxscript import opset18

from bpc.emit.ir_tools import add_initializer, constant, remove_dead
from passes.ops.grouped import BY_NAME

op: Any = opset18  # its types name every kind of tensor an operator takes


def _grouped_product(x: Any, weights: Any, ends: Any) -> Any:
    """x (S, I), weights (groups, I, O), ends (groups,), increasing -> (S, O)."""
    groups = weights.shape[0]
    first, axis = op.Constant(value_ints=[0]), op.Constant(value_ints=[0])
    rows, width = op.Shape(x, start=0, end=1), op.Shape(weights, start=2, end=3)
    bounds, matrices = (_pieces(value, groups) for value in (op.Cast(ends, to=ir.DataType.INT64.value), weights))
    pieces = [
        op.MatMul(op.Slice(x, start, end, axis), op.Squeeze(matrix, axis))
        for start, end, matrix in zip([first, *bounds[:-1]], bounds, matrices, strict=True)
    ]
    rest = op.Expand(op.CastLike(op.Constant(value_float=0.0), x), op.Concat(op.Sub(rows, bounds[-1]), width, axis=0))
    return op.Concat(*pieces, rest, axis=0)


def _pieces(value: Any, count: int) -> list[Any]:
    found = op.Split(value, num_outputs=count, axis=0)
    return [found] if count == 1 else list(found)


def translations(program: torch.export.ExportedProgram) -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """{operator: its form in ONNX} for the grouped products of a program, for ``torch.onnx.export``."""
    targets = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    return {target: _grouped_product for target in targets if target.name() in BY_NAME}


class SplitStacks(InPlacePass):
    """Squeeze(Split(constant, axis 0)) -> a constant for each piece."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every such piece of the main graph."""
        modified = False
        for node in list(model.graph):
            stack = constant(node.inputs[0]) if node.op_type == "Split" and not node.domain else None
            axis = node.attributes.get("axis")
            if stack is None or len(node.outputs) != len(stack) or (axis is not None and axis.value != 0):
                continue
            for number, piece in enumerate(node.outputs):
                for use in list(piece.uses()):
                    axes = constant(use.node.inputs[1]) if use.node.op_type == "Squeeze" else None
                    if axes is not None and axes.tolist() == [0]:
                        name = f"{node.inputs[0].name}.{number}"  # type: ignore[union-attr]
                        matrix = add_initializer(model.graph, name, np.ascontiguousarray(stack[number]))
                        use.node.outputs[0].replace_all_uses_with(matrix, replace_graph_outputs=False)
                        modified = True
        remove_dead(model)
        return PassResult(model, modified)
