"""Linear layers of an exported graph: ``Add(MatMul(x, W), b)`` with constant W (in, out) and b, and their merging."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from bpc.emit.ir_tools import add_initializer, constant, insert, only_user, producer, remove_dead, replace


@dataclass(frozen=True)
class Projection:
    """y = x W (+ b): ``output`` is y, W has shape (in, out)."""

    input: ir.Value
    weight: ir.Value
    bias_value: ir.Value | None
    product: ir.Node
    output: ir.Value

    @property
    def features(self) -> int:
        """Size of y's last dimension."""
        return self.matrix().shape[1]

    def matrix(self) -> np.ndarray:
        """W."""
        weight = constant(self.weight)
        assert weight is not None
        return weight

    def bias(self) -> np.ndarray:
        """b, zeros where the layer has none."""
        bias = constant(self.bias_value)
        return bias if bias is not None else np.zeros(self.features, self.matrix().dtype)


def projection(output: ir.Value) -> Projection | None:
    """The linear layer that computes ``output``, or None."""
    addition = producer(output, "Add")
    bias = None
    product = producer(output, "MatMul")
    if addition is not None:
        for value, other in (addition.inputs, reversed(addition.inputs)):
            candidate, array = producer(value, "MatMul"), constant(other)
            if candidate is not None and array is not None and array.ndim == 1:
                product, bias = candidate, other
                break
    if product is None:
        return None
    x, weight = product.inputs
    array = constant(weight)
    if x is None or weight is None or array is None or array.ndim != 2:
        return None
    return Projection(x, weight, bias, product, output)


def linear_layers(graph: ir.Graph) -> Iterator[Projection]:
    """Every linear layer of the main graph once, with its bias where it has one."""
    for node in list(graph):
        if node.op_type != "MatMul" or node.domain:
            continue
        addition = only_user(node.outputs[0], "Add")
        layer = projection(addition.outputs[0]) if addition is not None else None
        if layer is None or layer.product is not node:
            layer = projection(node.outputs[0])
        if layer is not None:
            yield layer


class SplitGemm(InPlacePass):
    """Gemm(x, W, b) -> Add(MatMul(x, W'), b), with W' = Wᵀ where transB is set.

    torch.onnx writes linear layers on matrices (a classifier on pooled rows) as Gemm; the quantizers, and the other
    passes here, know products. Refuses transA, alpha and beta other than 1, and weights that are not constant.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every such Gemm of the main graph."""
        modified = False
        for index, node in enumerate(list(model.graph)):
            if node.op_type != "Gemm" or node.domain or node.attributes.get_int("transA", 0) != 0:
                continue
            if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
                continue
            weight, out = constant(node.inputs[1]), node.outputs[0]
            if weight is None:
                continue
            if node.attributes.get_int("transB", 0):
                weight = weight.T
            matrix = add_initializer(model.graph, f"gemm_{index}.weight", weight)
            result = insert(node, "MatMul", [node.inputs[0], matrix], like=out)
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                result = insert(node, "Add", [result, node.inputs[2]], like=out)
            replace(out, result)
            modified = True
        remove_dead(model)
        return PassResult(model, modified)


class MergeSiblings(InPlacePass):
    """x W1 + b1, x W2 + b2, ... -> Split(x [W1 W2 ...] + [b1 b2 ...]).

    One larger product instead of several smaller ones: Q, K and V, a gated FFN's gate and up. The split copies, so it
    pays only where products are small. Only layers of one kind (all with a bias, or none) and one dtype are merged.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Merge all sibling layers of the main graph."""
        graph = model.graph
        order = {node: position for position, node in enumerate(graph)}
        siblings: dict[tuple[int, bool, np.dtype], list[Projection]] = {}
        for layer in linear_layers(graph):
            key = (id(layer.input), layer.bias_value is not None, layer.matrix().dtype)
            siblings.setdefault(key, []).append(layer)
        modified = False
        for index, group in enumerate(g for g in siblings.values() if len(g) > 1):
            self._merge(graph, index, group, min((p.product for p in group), key=order.__getitem__))
            modified = True
        remove_dead(model)
        return PassResult(model, modified)

    def _merge(self, graph: ir.Graph, index: int, group: list[Projection], first: ir.Node) -> None:
        packed = np.concatenate([p.matrix() for p in group], axis=1)
        weight = add_initializer(graph, f"merged_{index}.weight", packed)
        out = group[0].output
        leading = list(out.shape)[:-1] if out.shape is not None else None
        shape = [*leading, sum(p.features for p in group)] if leading is not None else None
        merged = insert(first, "MatMul", [group[0].input, weight], shape=shape, dtype=out.dtype)
        if group[0].bias_value is not None:
            bias = add_initializer(graph, f"merged_{index}.bias", np.concatenate([p.bias() for p in group]))
            merged = insert(first, "Add", [merged, bias], shape=shape, dtype=out.dtype)
        sizes = add_initializer(graph, f"merged_{index}.sizes", np.array([p.features for p in group], np.int64))
        split = ir.node("Split", [merged, sizes], attributes={"axis": -1}, num_outputs=len(group))
        graph.insert_before(first, split)
        for part, layer in zip(split.outputs, group, strict=True):
            part.shape, part.type = layer.output.shape, layer.output.type
            replace(layer.output, part)
