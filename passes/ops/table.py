"""The one table: which rule an operator has.

An operator that is in no family and that torch does not tag pointwise gets `UNKNOWN`: nothing constant, everything
live, all axes pinned. So does a call that its rule was not written for (`Rule.applies`).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from passes.ir.sizes import is_parameter, tensor_inputs, tensor_of
from passes.ops import (
    attention,
    conv,
    creation,
    glu,
    grouped,
    linear,
    lookup,
    matmul,
    norms,
    padding,
    pieces,
    pointwise,
    reductions,
    views,
    windows,
)
from passes.ops.linear_form import linear_form
from passes.ops.rule import Kind, Rule
from passes.ops.unknown import UNKNOWN

aten = torch.ops.aten

RULES: Mapping[Any, Rule] = {
    **views.RULES,
    **pieces.RULES,
    **windows.RULES,
    **pointwise.RULES,
    **matmul.RULES,
    **attention.RULES,
    **conv.RULES,
    **glu.RULES,
    **norms.RULES,
    **reductions.RULES,
    **padding.RULES,
    **lookup.RULES,
    **creation.RULES,
}


def _entered(node: fx.Node) -> Rule | None:
    """What the table has; operators of other libraries, which may not be imported, are known by their names."""
    rule = RULES.get(node.target)
    if rule is None and isinstance(node.target, torch._ops.OpOverload):
        rule = grouped.BY_NAME.get(node.target.name())
    return rule


def rule_for(node: fx.Node) -> Rule:
    """The rule of a call_function node that yields one tensor."""
    if linear_form(node) is not None:
        return linear.RULE
    rule = _entered(node)
    if rule is None:
        return pointwise.POINTWISE if pointwise.is_pointwise(node) else UNKNOWN
    return rule if rule.applies(node) else UNKNOWN


def kind_of(node: fx.Node) -> Kind:
    """What an operator is, for those who only look through a graph; also of calls that get the conservative rule."""
    if node.op != "call_function":
        return Kind.OTHER
    if linear_form(node) is not None:
        return Kind.LINEAR
    rule = _entered(node)
    if rule is not None:
        return rule.kind
    return Kind.POINTWISE if pointwise.is_pointwise(node) else _LOOKED_THROUGH.get(node.target, Kind.OTHER)


# Analyses do not follow these (several results, chance), but roles look through them.
_LOOKED_THROUGH: Mapping[Any, Kind] = dict.fromkeys(
    (*pieces.SPLITS, operator.getitem, aten.stack.default, aten.dropout.default, aten.native_dropout.default), Kind.VIEW
)


def find_tables(graph: fx.Graph) -> frozenset[fx.Node]:
    """Values that no linear, convolution or attention computes: parameters, inputs, lookups, pointwise of those."""
    tables: set[fx.Node] = set()
    for node in graph.nodes:
        if is_parameter(node) or node.op == "placeholder":
            tables.add(node)
        elif node.op == "call_function":
            rule = rule_for(node)
            tabular = rule.tabular or rule is matmul.RULE  # an outer product of positions and rates
            if tabular and all(n in tables for n in tensor_inputs(node)):
                tables.add(node)
    return frozenset(tables)


def unknown_operators(graph: fx.Graph) -> list[str]:
    """Names of the operators that got the conservative default, for the report."""
    nodes = [n for n in graph.nodes if n.op == "call_function" and tensor_of(n) is not None]
    return sorted({str(n.target) for n in nodes if rule_for(n) is UNKNOWN})
