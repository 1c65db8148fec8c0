"""Residual connections around normalisations, in forms that stay fast on the CPU provider."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import add_initializer, constant, insert, producer, remove_dead, replace
from bpc.emit.linear import Projection, projection

_NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")

# Operators that only move numbers: -f(x) = f(-x). Their first input carries the numbers.
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Gather")

# A shift by far more than a normalisation's own numbers would cost precision.
_LARGEST_SHIFT = 4.0

_Constants = list[tuple[ir.Node, int]]  # (node, index of its input)


class ResidualAsDifference(InPlacePass):
    """Norm(x + h W) -> Norm(x - h (-W)), the same numbers to the last bit.

    ONNX Runtime fuses Add + LayerNormalization into SkipLayerNormalization when it opens the file; the CPU provider's
    kernel for it is several times slower than the two operators. It does not fuse Sub, which runs on all threads (the
    variadic Sum does not, and the next operator then reads from another core). The sign goes into the constants of
    whatever linear operators compute one of the addends; where there are none, the addition becomes a Sum. Left
    alone: an addition of a constant.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every residual addition that a normalisation reads."""
        modified = False
        negatives: dict[ir.Value, ir.Value] = {}  # a constant that several layers share is negated once
        for node in list(model.graph):
            if node.op_type not in _NORMS:
                continue
            addition = producer(node.inputs[0], "Add")
            if addition is None or any(v is None or v.const_value is not None for v in addition.inputs):
                continue
            out = addition.outputs[0]
            x, y = addition.inputs
            signs = _sign_constants(y)
            if signs is None:
                x, y = y, x
                signs = _sign_constants(y)
            for owner, index in signs or ():
                value = owner.inputs[index]
                assert value is not None
                if value not in negatives:
                    negatives[value] = _negative(model.graph, value)
                owner.replace_input_with(index, negatives[value])
            replace(out, insert(addition, "Sum" if signs is None else "Sub", [x, y], like=out))
            modified = True
        remove_dead(model)
        return PassResult(model, modified)


def _sign_constants(value: ir.Value | None) -> _Constants | None:
    """The constants whose signs are the sign of ``value``; None where there are none, or where others read it too."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.domain or len(value.uses()) != 1 or value.is_graph_output():
        return None
    constants = [i for i, v in enumerate(node.inputs) if v is not None and v.const_value is not None]
    if node.op_type in _MOVES:
        return _sign_constants(node.inputs[0])
    if node.op_type in ("MatMul", "Mul") and constants:
        return [(node, constants[0])]
    if node.op_type == "Gemm" and constants == list(range(1, len(node.inputs))):
        return [(node, i) for i in constants]
    if node.op_type == "Add" and len(constants) == 1:
        rest = _sign_constants(node.inputs[1 - constants[0]])
        return [*rest, (node, constants[0])] if rest is not None else None
    return None


def _negative(graph: ir.Graph, value: ir.Value) -> ir.Value:
    tensor = value.const_value
    assert tensor is not None
    # Computed when it is written: large models need not hold both.
    lazy = ir.LazyTensor(lambda: ir.tensor(np.negative(tensor.numpy())), tensor.dtype, ir.Shape(tensor.shape.numpy()))
    return add_initializer(graph, f"{value.name}.negative", lazy)


class BiasIntoNorm(InPlacePass):
    """x = Norm(..) + c; Norm(x + (h W + b)) -> x' = Norm(..) + (c + b); Norm(x' + h W), x' U + d -> x' U + (d - b U).

    One pass over the activations less per residual. Only where everything else that reads x is a linear layer with a
    bias (post-norm encoders and decoders); a bias far larger than the normalisation's own numbers stays where it is.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Move the bias of every such residual branch."""
        modified = False
        for node in list(model.graph):
            if node.op_type in ("Add", "Sum") and not node.domain and len(node.inputs) == 2:
                modified |= any(self._move(model.graph, node, i) for i in (0, 1))
        remove_dead(model)
        return PassResult(model, modified)

    def _move(self, graph: ir.Graph, addition: ir.Node, index: int) -> bool:
        stream, branch = addition.inputs[1 - index], addition.inputs[index]
        layer = projection(branch) if branch is not None else None
        norm = producer(stream, "LayerNormalization")
        if layer is None or layer.bias_value is None or norm is None or len(norm.inputs) < 3 or stream is None:
            return False
        scale, shift, bias = constant(norm.inputs[1]), constant(norm.inputs[2]), layer.bias()
        if scale is None or shift is None or scale.shape != shift.shape or shift.shape != bias.shape:
            return False
        if np.abs(bias).max() > _LARGEST_SHIFT * (np.abs(scale) + np.abs(shift)).max():
            return False
        readers = _linear_readers(stream, addition)
        if branch is None or len(branch.uses()) != 1 or readers is None:
            return False
        norm.replace_input_with(2, add_initializer(graph, f"{_name(norm.inputs[2])}.shifted", shift + bias))
        for reader in readers:
            exact = reader.bias().astype(np.float64) - bias.astype(np.float64) @ reader.matrix().astype(np.float64)
            moved = add_initializer(graph, f"{_name(reader.bias_value)}.shifted", exact.astype(bias.dtype))
            owner = reader.output.producer()
            assert owner is not None
            owner.replace_input_with(list(owner.inputs).index(reader.bias_value), moved)
        addition.replace_input_with(index, layer.product.outputs[0])
        return True


def _linear_readers(stream: ir.Value, addition: ir.Node) -> list[Projection] | None:
    """The linear layers with a bias that read ``stream``; None where anything else but ``addition`` does."""
    if stream.is_graph_output():
        return None
    readers = []
    for use in stream.uses():
        if use.node is addition:
            continue
        product = use.node.outputs[0]
        uses = list(product.uses())
        layer = projection(uses[0].node.outputs[0]) if len(uses) == 1 and not product.is_graph_output() else None
        if layer is None or layer.product is not use.node or layer.input is not stream or layer.bias_value is None:
            return None
        readers.append(layer)
    return readers


def _name(value: ir.Value | None) -> str:
    return str(value.name) if value is not None else ""
