"""einsum of two operands  ->  permute, matmul, permute.

For equations with at most one free dim per operand (or any number on the left, when nothing is batched) and one
contracted dim: attention and projections written as einsum. Others keep the operator, and its conservative default.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from passes.metadata import call

aten = torch.ops.aten


def einsum_to_matmul(graph: fx.Graph, node: fx.Node) -> None:
    """Rewrite one einsum node in place, if its equation is such a product."""
    equation: Any = node.args[0]
    operands: Any = node.args[1]
    plan = _plan(equation.replace(" ", ""), len(operands))
    if plan is None:
        return
    left, right, result, wanted = plan
    sides = equation.replace(" ", "").split("->")[0].split(",")
    with graph.inserting_before(node):
        a = _permute(graph, operands[0], sides[0], left)
        b = _permute(graph, operands[1], sides[1], right)
        new = _permute(graph, call(graph, aten.matmul.default, a, b), result, wanted)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _plan(equation: str, count: int) -> tuple[str, str, str, str] | None:
    """Dim letters of (left operand, right operand, their product, wanted result), or None."""
    if count != 2 or "->" not in equation or "." in equation:
        return None
    inputs, out = equation.split("->")
    a, b = inputs.split(",")
    if any(len(set(side)) != len(side) for side in (a, b, out)):
        return None
    batch = "".join(c for c in a if c in b and c in out)
    contracted = "".join(c for c in a if c in b and c not in out)
    free_a = "".join(c for c in a if c not in b)
    free_b = "".join(c for c in b if c not in a)
    fits = len(contracted) == 1 == len(free_b) and (len(free_a) == 1 or (not batch and free_a))
    if not fits or sorted(out) != sorted(batch + free_a + free_b):
        return None
    return batch + free_a + contracted, batch + contracted + free_b, batch + free_a + free_b, out


def _permute(graph: fx.Graph, node: fx.Node, have: str, want: str) -> fx.Node:
    return node if have == want else call(graph, aten.permute.default, node, [have.index(c) for c in want])
