"""einsum of one operand  ->  permute;  of two  ->  permute, matmul, permute.

The letters of two operands are B (in both and in the result), K (in both, summed), A and F (in one and in the result):

    einsum(a, b)  =  a (A', B, A", K) @ b (B, K, F)        A" the last letter of A, A' the others; K and F flattened

which covers attention and projections written as einsum, weights of several dims included. With nothing to sum (the
angles of rotary embeddings) it is a product of broadcast operands, as outer is. Equations with repeated or lonely
letters, an ellipsis, or a letter of two sizes, keep the operator, and its conservative default.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from passes.ir.metadata import call
from passes.ir.sizes import is_static, shape_of

aten = torch.ops.aten


class _Letters(NamedTuple):
    batch: str
    summed: str
    left: str
    right: str


def einsum_to_matmul(graph: fx.Graph, node: fx.Node) -> None:
    """Rewrite one einsum node in place, if its equation is a permutation or such a product."""
    equation: Any = node.args[0]
    operands: Any = node.args[1]
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    sides = inputs.split(",")
    if not arrow or "." in equation or any(len(set(side)) != len(side) for side in (*sides, out)):
        return
    if not _agree(operands, sides):
        return
    with graph.inserting_before(node):
        if len(sides) == 1 and sorted(out) == sorted(inputs):
            new = _permute(graph, operands[0], inputs, out)
        elif len(sides) == 2 and set(sides[0] + sides[1]) == set(out):
            new = call(
                graph, aten.mul.Tensor, *(_spread(graph, x, have, out) for x, have in zip(operands, sides, strict=True))
            )
        elif len(sides) == 2 and (letters := _letters(sides[0], sides[1], out)) is not None:
            if any(not is_static(shape_of(operands[1])[sides[1].index(c)]) for c in letters.right[1:]):
                return
            new = _product(graph, operands, sides, letters, out)
        else:
            return
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _agree(operands: Any, sides: list[str]) -> bool:
    """A letter stands for one size in every operand: einsum broadcasts a 1, which no matmul does for summed letters."""
    sizes: dict[str, Any] = {}
    for operand, side in zip(operands, sides, strict=True):
        for letter, size in zip(side, shape_of(operand), strict=True):
            other = sizes.setdefault(letter, size)
            if is_static(size) != is_static(other) or (is_static(size) and size != other):
                return False
    return True


def _letters(a: str, b: str, out: str) -> _Letters | None:
    batch = "".join(c for c in a if c in b and c in out)
    summed = "".join(c for c in a if c in b and c not in out)
    left, right = "".join(c for c in a if c not in b), "".join(c for c in b if c not in a)
    if not summed or sorted(out) != sorted(batch + left + right):
        return None
    return _Letters(batch, summed, left, right)


def _product(graph: fx.Graph, operands: Any, sides: list[str], letters: _Letters, out: str) -> fx.Node:
    batch, summed, left, right = letters
    a = _permute(graph, operands[0], sides[0], left[:-1] + batch + left[-1:] + summed)
    b = _permute(graph, operands[1], sides[1], batch + summed + right)
    sizes = [shape_of(operands[1])[sides[1].index(c)] for c in right]
    if len(summed) > 1:
        a = call(graph, aten.flatten.using_ints, a, len(sides[0]) - len(summed), -1)
        b = call(graph, aten.flatten.using_ints, b, len(batch), len(batch) + len(summed) - 1)
    if len(right) > 1:
        b = call(graph, aten.flatten.using_ints, b, len(batch) + 1, -1)
    a = a if left else call(graph, aten.unsqueeze.default, a, -2)
    b = b if right else call(graph, aten.unsqueeze.default, b, -1)
    product = call(graph, aten.matmul.default, a, b)
    product = product if left else call(graph, aten.squeeze.dim, product, -2)
    product = product if right else call(graph, aten.squeeze.dim, product, -1)
    if len(right) > 1:
        product = call(graph, aten.unflatten.int, product, -1, sizes)
    return _permute(graph, product, left[:-1] + batch + left[-1:] + right, out)


def _spread(graph: fx.Graph, node: fx.Node, have: str, want: str) -> fx.Node:
    """The dims in the order of ``want``, with a dim of 1 for every letter that is not there."""
    node = _permute(graph, node, have, "".join(c for c in want if c in have))
    for position, letter in enumerate(want):
        if letter not in have:
            node = call(graph, aten.unsqueeze.default, node, position)
    return node


def outer_to_product(graph: fx.Graph, node: fx.Node) -> None:
    """outer(a, b)  ->  a (A, 1) * b (1, B)."""
    a, b = node.args[:2]
    with graph.inserting_before(node):
        wide = call(graph, aten.unsqueeze.default, a, 1), call(graph, aten.unsqueeze.default, b, 0)
        node.replace_all_uses_with(call(graph, aten.mul.Tensor, *wide))
    graph.erase_node(node)


def _permute(graph: fx.Graph, node: fx.Node, have: str, want: str) -> fx.Node:
    return node if have == want else call(graph, aten.permute.default, node, [have.index(c) for c in want])
