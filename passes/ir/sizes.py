"""Sizes of traced values: static (an int) or symbolic (from the inputs), and how reshapes group them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import sympy
import torch
from torch import fx

aten = torch.ops.aten


def tensor_of(node: fx.Node) -> torch.Tensor | None:
    """The fake tensor a node stands for; None for sizes, tuples and asserts."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def is_static(size: Any) -> bool:
    return isinstance(size, int)


def is_symbolic(size: Any) -> bool:
    """A size that comes from the inputs. A symbol that the trace bound to a number is that number."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """Sizes of the value: ints for channel dims, SymInts for data dims. Raises TypeError for non-tensors."""
    value = tensor_of(node)
    if value is None:
        raise TypeError(f"{node.name} is not a tensor")
    sizes: tuple[Any, ...] = tuple(value.shape)
    return tuple(s if is_symbolic(s) else int(s) for s in sizes)


def same_size(a: Any, b: Any) -> bool:
    """Two sizes are the same number, or the same expression of the inputs' sizes."""
    if is_static(a) or is_static(b):
        return is_static(a) and is_static(b) and a == b
    return bool(a.node.expr == b.node.expr)


def same_sizes(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(same_size, a, b))


def holds_tensor(node: fx.Node) -> bool:
    """The node's value is a tensor, or a list of tensors."""
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        return any(isinstance(item, torch.Tensor) for item in value)
    return isinstance(value, torch.Tensor)


def carrying_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs that hold tensors or lists of them: those that an operator with several results has as well."""
    return [n for n in node.all_input_nodes if holds_tensor(n)]


def tensor_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs that are tensors, each once."""
    return [n for n in node.all_input_nodes if tensor_of(n) is not None]


_SIZES = frozenset({aten.sym_size.int, aten.sym_stride.int, aten.sym_numel.default, aten.sym_storage_offset.default})


def reads_sizes_only(node: fx.Node) -> bool:
    """The node asks a value for its sizes, not for its numbers."""
    return node.op == "call_function" and node.target in _SIZES


def is_parameter(node: fx.Node) -> bool:
    """A get_attr node: parameter, buffer or lifted constant."""
    return node.op == "get_attr"


class DimGroup(NamedTuple):
    """Dims of a reshape whose products agree: ``inputs`` become ``outputs``."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def reshape_groups(in_shape: Sequence[Any], out_shape: Sequence[Any]) -> list[DimGroup]:
    """Factor a reshape into the smallest groups of input and output dims of equal product.

    Sizes of 1 belong to no group. Symbolic sizes are compared by giving every symbol its own large prime; where that
    breaks a divisibility the graph relies on, the sizes of the traced example decide.
    """
    for number in (_prime_sizes, example_sizes):
        ins, outs = number(in_shape), number(out_shape)
        if math.prod(ins) == math.prod(outs):
            return _match_products(ins, outs, in_shape, out_shape)
    return [DimGroup(tuple(range(len(in_shape))), tuple(range(len(out_shape))))]


def _match_products(
    ins: list[int], outs: list[int], in_shape: Sequence[Any], out_shape: Sequence[Any]
) -> list[DimGroup]:
    """What is left of both shapes has equal products too: beside a size of 0, other sizes need not agree."""
    left = [d for d, s in enumerate(in_shape) if not (is_static(s) and s == 1)]
    right = [d for d, s in enumerate(out_shape) if not (is_static(s) and s == 1)]
    groups, i, j = [], 0, 0

    def product(sizes: list[int], dims: list[int]) -> int:
        return math.prod(sizes[d] for d in dims)

    while i < len(left) or j < len(right):
        a, b = left[i : i + 1], right[j : j + 1]
        i, j = i + 1, j + 1
        while product(ins, a) != product(outs, b) or product(ins, left[i:]) != product(outs, right[j:]):
            if product(ins, a) < product(outs, b) and i < len(left):
                a.append(left[i])
                i += 1
            elif j < len(right):
                b.append(right[j])
                j += 1
            else:
                a += left[i:]
                i = len(left)
        groups.append(DimGroup(tuple(a), tuple(b)))
    return groups


def example_sizes(shape: Sequence[Any]) -> list[int]:
    """The sizes that the traced example had. ``int`` of a symbolic size would fix it, for the whole graph."""
    return [s if is_static(s) else int(s.node.hint) for s in shape]


def _prime_sizes(shape: Sequence[Any]) -> list[int]:
    def number(size: Any) -> int:
        if is_static(size):
            return size
        expr = size.node.expr
        if isinstance(expr, sympy.Symbol):
            return _prime_for(expr)
        return int(expr.xreplace({symbol: sympy.Integer(_prime_for(symbol)) for symbol in expr.free_symbols}))

    return [number(size) for size in shape]


@functools.cache
def _prime_for(symbol: sympy.Symbol) -> int:
    """A prime of about a million for each symbol number; gaps between primes of that size stay far below 1000."""
    digits = int("".join(c for c in symbol.name if c.isdigit()) or 0)
    return int(sympy.nextprime(1_000_000 + 1_000 * digits))
