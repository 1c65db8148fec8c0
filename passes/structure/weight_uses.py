"""Which nodes multiply by a weight matrix, and where that matrix comes from.

    y = linear(x, W, b)      W (out, in)                nn.Linear
    y = addmm(b, x, W)       W (in, out)                Conv1D
    y = x @ W (+ b)          W (in, out), W.t(): (out, in)

`linear_form` knows products with a parameter itself, which is what can be rewritten. Roles need less and see more: here
a weight may also be read through transposes, casts, splits, slices (nn.MultiheadAttention splits its packed in_proj)
and an inserted mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from passes.ir.graph import get_attribute
from passes.ops.kinds import is_view, tensor_inputs

aten = torch.ops.aten

_TRANSPOSES = (aten.t.default, aten.transpose.int, aten.permute.default, aten.numpy_T.default)


@dataclass(frozen=True)
class WeightUse:
    """One use of a weight matrix. ``out_dim`` is the stored weight's dimension that holds the output features."""

    node: fx.Node
    input: fx.Node
    weight: str
    bias: str | None
    out_dim: int


def weight_uses(graph_module: fx.GraphModule) -> Mapping[fx.Node, WeightUse]:
    """Every linear node of the graph, in graph order."""
    uses = {}
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and (use := _weight_use(graph_module, node)) is not None:
            uses[node] = use
    return uses


def _weight_use(root: fx.GraphModule, node: fx.Node) -> WeightUse | None:
    args: tuple[Any, ...] = node.args
    bias: Any = None
    if node.target is aten.linear.default:
        x, weight, bias = (*args, node.kwargs.get("bias"))[:3]
        out_dim = 0
    elif node.target is aten.addmm.default:
        bias, x, weight = args[:3]
        out_dim = 1
    elif node.target in (aten.mm.default, aten.matmul.default):
        x, weight = args[:2]
        bias, out_dim = _added_bias(root, node), 1
    else:
        return None
    if not isinstance(x, fx.Node) or not isinstance(weight, fx.Node):
        return None
    source, transposed = _parameter(root, weight, ndim=2)
    if source is None:
        return None
    bias_source = _parameter(root, bias, ndim=1)[0] if isinstance(bias, fx.Node) else None
    return WeightUse(node, x, source, bias_source, out_dim ^ transposed)


def _added_bias(root: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The b of ``x @ W + b``."""
    users = list(node.users)
    if len(users) != 1 or users[0].target is not aten.add.Tensor:
        return None
    other = next((a for a in users[0].args[:2] if a is not node), None)
    return other if isinstance(other, fx.Node) and _parameter(root, other, ndim=1)[0] is not None else None


def _parameter(root: fx.GraphModule, node: fx.Node, ndim: int) -> tuple[str | None, bool]:
    """(name of the parameter that ``node`` is, or is a part of; whether it is read transposed)."""
    transposed = False
    while node.op != "get_attr":
        inputs = tensor_inputs(node)
        if node.op == "call_module" and len(inputs) == 1:  # a mask in front of the weight
            node = inputs[0]
            continue
        if not is_view(node) or len(inputs) != 1:
            return None, False
        transposed ^= node.target in _TRANSPOSES
        node = inputs[0]
    value = get_attribute(root, str(node.target))
    if not isinstance(value, nn.Parameter) or value.dim() != ndim:
        return None, False
    return str(node.target), transposed
