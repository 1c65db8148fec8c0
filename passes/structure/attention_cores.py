"""Attention cores: softmax(q kᵀ · s + mask) v, fused or written out.

    fused        scaled_dot_product_attention(q, k, v)
    written out  product(q, k) → views, pointwise (scale, mask, bias) → softmax → views, pointwise → product(·, v)

where a product is matmul, bmm, baddbmm or a two-operand einsum. The softmax runs over the keys: that says which operand
of the first product is the key, transposes between the two taken into account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import fx

from passes.ir.sizes import carrying_inputs, tensor_of
from passes.ops import attention, matmul, reductions, views
from passes.ops.arguments import argument
from passes.ops.rule import Kind
from passes.ops.table import kind_of, rule_for

aten = torch.ops.aten

_ON_THE_WAY = frozenset({Kind.VIEW, Kind.POINTWISE, Kind.PRODUCT, Kind.SUM})


@dataclass(frozen=True)
class AttentionCore:
    """One attention. ``head_dim`` is that of query and key, ``value_dim`` that of values and output.

    ``heads`` is the number of query heads where the shapes show it (None when heads are merged with the batch).
    ``inner``: of each of queries, keys, values and then of the output, the dim that holds the dims of a head, from the
    right.
    """

    queries: tuple[fx.Node, ...]
    keys: tuple[fx.Node, ...]
    values: tuple[fx.Node, ...]
    output: fx.Node
    head_dim: int | None
    value_dim: int | None
    heads: int | None
    inner: tuple[int | None, ...]


def find_attention_cores(graph: fx.Graph) -> list[AttentionCore]:
    """Every attention core, in graph order."""
    cores = []
    for node in graph.nodes:
        kind = kind_of(node)
        if kind is Kind.ATTENTION:
            q, k, v, _ = attention.operands(node)
            dims = _shape(q)[-1:], _shape(node)[-1:], _shape(q)[-3:-2]
            head_dim, value_dim, heads = (_static(d) for d in dims)
            cores.append(AttentionCore((q,), (k,), (v,), node, head_dim, value_dim, heads, (-1,) * 4))
        elif kind is Kind.SOFTMAX and (core := _written_out(node)) is not None:
            cores.append(core)
    return cores


@dataclass(frozen=True)
class _Product:
    """A product of two tensors; ``letters`` names their dims and the result's, from the right, as in einsum."""

    left: fx.Node
    right: fx.Node
    letters: tuple[str, str, str]


def _product(node: fx.Node) -> _Product | None:
    if node.target is aten.einsum.default and len(argument(node, "tensors")) == 2:
        left, right = argument(node, "tensors")
        inputs, _, output = argument(node, "equation").replace(" ", "").replace("...", "").partition("->")
        return _Product(left, right, (*inputs.split(","), output)) if output else None
    if kind_of(node) is not Kind.MATMUL:
        return None
    return _Product(*matmul.operands(node), ("ik", "kj", "ij"))


def _written_out(softmax: fx.Node) -> AttentionCore | None:
    scores = list(_search(softmax, carrying_inputs))
    mixes = list(_search(softmax, lambda n: n.users))
    if not scores or not mixes:
        return None
    from_right = reductions.one_dim(softmax)[0] - len(_shape(softmax))
    queries, keys, values = [], [], []
    query_dims, key_dims, value_dims = list[int | None](), list[int | None](), list[int | None]()
    head_dim = value_dim = output_dim = None
    for node, path in scores:
        product = _product(node)
        assert product is not None
        left, right, out = product.letters
        key_is_left = out[_before(path, from_right)] in left
        keys.append(product.left if key_is_left else product.right)
        queries.append(product.right if key_is_left else product.left)
        contracted = set(left) & set(right) - set(out)
        key_dims.append(_place(left if key_is_left else right, contracted))
        query_dims.append(_place(right if key_is_left else left, contracted))
        head_dim = head_dim or _size(product.left, left, contracted)
    for node, path in mixes:
        product = _product(node)
        assert product is not None
        probs_left = product.left is path[-1]
        value, own, other = (
            (product.right, product.letters[1], product.letters[0])
            if probs_left
            else (product.left, product.letters[0], product.letters[1])
        )
        values.append(value)
        mixed = set(own) & set(product.letters[2]) - set(other)
        value_dims.append(_place(own, mixed))
        output_dim = _place(product.letters[2], mixed) if node is mixes[0][0] else output_dim
        value_dim = value_dim or _size(value, own, mixed)
    heads = _static(_shape(softmax)[-3:-2]) if from_right == -1 else None
    inner = (*query_dims, *key_dims, *value_dims, output_dim)
    return AttentionCore(tuple(queries), tuple(keys), tuple(values), mixes[0][0], head_dim, value_dim, heads, inner)


def _search(
    start: fx.Node, neighbours: Callable[[fx.Node], Iterable[fx.Node]]
) -> Iterable[tuple[fx.Node, tuple[fx.Node, ...]]]:
    """(product, the nodes from ``start`` to the one before it), looking through views and pointwise operators only."""
    seen, stack = {start}, list[tuple[fx.Node, ...]]([(start,)])
    while stack:
        path = stack.pop()
        for node in neighbours(path[-1]):
            if node.op != "call_function":
                continue
            if _product(node) is not None:
                yield node, path
            elif node not in seen and kind_of(node) in _ON_THE_WAY:
                seen.add(node)
                stack.append((*path, node))


def _before(path: Iterable[fx.Node], from_right: int) -> int:
    """Which dim of the first node's source, looking back along ``path``, its dim ``from_right`` is (both negative)."""
    for node in path:
        if node.op == "call_function" and rule_for(node) is views.PERMUTE:
            order = views.permutation(node)
            from_right = order[from_right] - len(order)
    return from_right


def _size(node: fx.Node, letters: str, wanted: set[str]) -> int | None:
    """The static size of the one dim of ``node`` whose letter is wanted; letters count from the right."""
    place = _place(letters, wanted)
    return None if place is None else _static(_shape(node)[place:][:1])


def _place(letters: str, wanted: set[str]) -> int | None:
    """Where the one wanted letter stands, counted from the right."""
    places = [i - len(letters) for i, letter in enumerate(letters) if letter in wanted]
    return places[0] if len(places) == 1 else None


def _shape(node: fx.Node) -> tuple[int | torch.SymInt, ...]:
    value = tensor_of(node)
    return () if value is None else tuple(value.shape)


def _static(sizes: tuple[int | torch.SymInt, ...]) -> int | None:
    return sizes[0] if sizes and isinstance(sizes[0], int) else None
