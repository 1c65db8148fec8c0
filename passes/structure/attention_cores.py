"""Attention cores: softmax(q kᵀ · s + mask) v, fused or written out.

    fused        scaled_dot_product_attention(q, k, v)
    written out  product(q, k) → views, pointwise (scale, mask, bias) → softmax → views, pointwise → product(·, v)

where a product is matmul, bmm, baddbmm or a two-operand einsum. The softmax runs over the keys: that says which operand
of the first product is the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.ops.kinds import is_pointwise, is_view, shape, tensor_inputs

aten = torch.ops.aten

FUSED = frozenset(
    {
        aten.scaled_dot_product_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_attention_math.default,
    }
)
SOFTMAXES = frozenset({aten.softmax.int, aten._softmax.default, aten._safe_softmax.default})


@dataclass(frozen=True)
class AttentionCore:
    """One attention. ``head_dim`` is that of query and key, ``value_dim`` that of values and output.

    ``heads`` is the number of query heads where the shapes show it (None when heads are merged with the batch).
    """

    queries: tuple[fx.Node, ...]
    keys: tuple[fx.Node, ...]
    values: tuple[fx.Node, ...]
    output: fx.Node
    head_dim: int | None
    value_dim: int | None
    heads: int | None


def find_attention_cores(graph: fx.Graph) -> list[AttentionCore]:
    """Every attention core, in graph order."""
    cores = []
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target in FUSED:
            args: tuple[Any, ...] = node.args
            q, k, v = args[:3]
            dims = shape(q)[-1:], shape(node)[-1:], shape(q)[-3:-2]
            cores.append(AttentionCore((q,), (k,), (v,), node, *(_static(d) for d in dims)))
        elif node.target in SOFTMAXES and (core := _written_out(node)) is not None:
            cores.append(core)
    return cores


@dataclass(frozen=True)
class _Product:
    """A product of two tensors; ``letters`` names their dims and the result's, from the right, as in einsum."""

    left: fx.Node
    right: fx.Node
    letters: tuple[str, str, str]


def _product(node: fx.Node) -> _Product | None:
    args: tuple[Any, ...] = node.args
    if node.target in (aten.matmul.default, aten.bmm.default):
        left, right = args[:2]
    elif node.target is aten.baddbmm.default:
        left, right = args[1:3]
    elif node.target is aten.einsum.default and len(args[1]) == 2:
        left, right = args[1]
        inputs, output = args[0].replace(" ", "").replace("...", "").split("->")
        return _Product(left, right, (*inputs.split(","), output))
    else:
        return None
    return _Product(left, right, ("ik", "kj", "ij"))


def _written_out(softmax: fx.Node) -> AttentionCore | None:
    scores = list(_search(softmax, tensor_inputs))
    mixes = list(_search(softmax, lambda n: n.users))
    if not scores or not mixes:
        return None
    dim: Any = softmax.args[1]
    from_right = dim - len(shape(softmax)) if dim >= 0 else dim
    queries, keys, values = [], [], []
    head_dim = value_dim = None
    for node, _ in scores:
        product = _product(node)
        assert product is not None
        left, right, out = product.letters
        key_is_left = out[from_right] in left
        keys.append(product.left if key_is_left else product.right)
        queries.append(product.right if key_is_left else product.left)
        contracted = set(left) & set(right) - set(out)
        head_dim = head_dim or _size(product.left, left, contracted)
    for node, origin in mixes:
        product = _product(node)
        assert product is not None
        probs_left = product.left is origin
        value, own, other = (
            (product.right, product.letters[1], product.letters[0])
            if probs_left
            else (product.left, product.letters[0], product.letters[1])
        )
        values.append(value)
        value_dim = value_dim or _size(value, own, set(own) & set(product.letters[2]) - set(other))
    heads = _static(shape(softmax)[-3:-2]) if from_right == -1 else None
    return AttentionCore(tuple(queries), tuple(keys), tuple(values), mixes[0][0], head_dim, value_dim, heads)


def _search(start: fx.Node, neighbours: Callable[[fx.Node], Iterable[fx.Node]]) -> Iterable[tuple[fx.Node, fx.Node]]:
    """(product, the node it was reached from), looking through views and pointwise operators only."""
    seen, stack = {start}, [start]
    while stack:
        origin = stack.pop()
        for node in neighbours(origin):
            if node.op != "call_function":
                continue
            if _product(node) is not None:
                yield node, origin
            elif node not in seen and (is_view(node) or is_pointwise(node)):
                seen.add(node)
                stack.append(node)


def _size(node: fx.Node, letters: str, wanted: set[str]) -> int | None:
    """The static size of the one dim of ``node`` whose letter is wanted; letters count from the right."""
    positions = [i - len(letters) for i, letter in enumerate(letters) if letter in wanted]
    return _static(shape(node)[positions[0] :][:1]) if len(positions) == 1 else None


def _static(sizes: tuple[int | torch.SymInt, ...]) -> int | None:
    return sizes[0] if sizes and isinstance(sizes[0], int) else None
