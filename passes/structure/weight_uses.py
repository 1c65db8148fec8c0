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

import torch
from torch import fx, nn

from passes.ir.graph import get_attribute
from passes.ir.sizes import carrying_inputs, is_parameter, shape_of
from passes.ops import grouped, views
from passes.ops.linear_form import affine
from passes.ops.rule import Kind
from passes.ops.table import kind_of, rule_for

aten = torch.ops.aten


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


def stacked_weights(graph_module: fx.GraphModule) -> Mapping[str, tuple[int, ...]]:
    """Parameters of three dims and more that products multiply by, and their shapes: stacked experts, XLNet's heads."""
    found: dict[str, tuple[int, ...]] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and is_parameter(node) and len(shape_of(node)) > 2 and _multiplies(node):
            found[str(node.target)] = tuple(int(size) for size in shape_of(node))
    return found


def _multiplies(node: fx.Node) -> bool:
    """Whether a product reads the value, through views and lookups."""
    for user in node.users:
        if user.op != "call_function":
            continue
        kind = kind_of(user)
        if kind in (Kind.MATMUL, Kind.LINEAR) or rule_for(user) is grouped.RULE:
            return True
        if kind in (Kind.VIEW, Kind.LOOKUP) and _multiplies(user):
            return True
    return False


def _weight_use(root: fx.GraphModule, node: fx.Node) -> WeightUse | None:
    operands = affine(node)
    if operands is None or not isinstance(operands.x, fx.Node) or not isinstance(operands.weight, fx.Node):
        return None
    source, transposed = _parameter(root, operands.weight, ndim=2)
    if source is None:
        return None
    bias = operands.bias if operands.bias is not None else _added_bias(root, node)
    bias_source = _parameter(root, bias, ndim=1)[0] if isinstance(bias, fx.Node) else None
    return WeightUse(node, operands.x, source, bias_source, operands.out_dim ^ transposed)


def _added_bias(root: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The b of ``x @ W + b``."""
    users = list(node.users)
    if len(users) != 1 or kind_of(users[0]) is not Kind.SUM:
        return None
    other = next((a for a in users[0].args[:2] if a is not node), None)
    return other if isinstance(other, fx.Node) and _parameter(root, other, ndim=1)[0] is not None else None


def _parameter(root: fx.GraphModule, node: fx.Node, ndim: int) -> tuple[str | None, bool]:
    """(name of the parameter that ``node`` is, or is a part of; whether it is read transposed)."""
    transposed = False
    while node.op != "get_attr":
        inputs = carrying_inputs(node)
        if node.op == "call_module" and len(inputs) == 1:  # a mask in front of the weight
            node = inputs[0]
            continue
        if kind_of(node) is not Kind.VIEW or len(inputs) != 1:
            return None, False
        transposed ^= node.op == "call_function" and rule_for(node) is views.PERMUTE
        node = inputs[0]
    value = get_attribute(root, str(node.target))
    if not isinstance(value, nn.Parameter) or value.dim() != ndim:
        return None, False
    return str(node.target), transposed
