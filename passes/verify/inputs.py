"""Inputs to verify on: the example, and random ones of other sizes that are like it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.ir.info import trace_info
from passes.ir.sizes import tensor_of

aten = torch.ops.aten


def fresh_inputs(
    graph_module: fx.GraphModule, seed: int = 0, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """(description, args, kwargs): the example, then random inputs with other batch and sequence sizes.

    Random integers stay in the example's range, 0/1 masks hide a random tail of each row (never all of it; see
    `shown_value`), floats follow the example's mean and spread.
    """
    info = trace_info(graph_module)
    generator = torch.Generator().manual_seed(seed)
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder" and tensor_of(n) is not None]
    yield "example", *pytree.tree_unflatten([_cast(leaf, dtype) for leaf in leaves], spec)
    symbols: dict[sympy.Symbol, int] = {}
    for node, tensor in zip(placeholders, tensors, strict=True):
        fake = tensor_of(node)
        assert fake is not None
        for size, actual in zip(fake.shape, tensor.shape, strict=True):
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                symbols[size.node.expr] = actual
    picks = random.Random(seed)
    for trial in range(3 if symbols else 1):
        # Inputs whose example sizes agree (ids and their mask) keep agreeing.
        other = {n: _other_size(n, trial, picks) for n in sorted(set(symbols.values()))}
        bound = {s: other[n] for s, n in symbols.items()}
        new = iter(
            _random_like(tensor, _shape(node, bound), generator)
            for node, tensor in zip(placeholders, tensors, strict=True)
        )
        filled = [_cast(next(new), dtype) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        sizes = ", ".join("x".join(map(str, t.shape)) for t in filled if isinstance(t, torch.Tensor))
        yield sizes, *pytree.tree_unflatten(filled, spec)


def _other_size(example: int, trial: int, picks: random.Random) -> int:
    """Sizes near the example's; the last trial repeats the example's own sizes with fresh numbers."""
    return example if trial == 2 else max(1, example + picks.choice([-1, 1, 2, 3]) * (1 + trial))


def _shape(node: fx.Node, bound: dict[sympy.Symbol, int]) -> tuple[int, ...]:
    fake = tensor_of(node)
    assert fake is not None
    return tuple(int(s.node.expr.subs(bound)) if isinstance(s, torch.SymInt) else int(s) for s in fake.shape)


def _random_like(example: torch.Tensor, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    if example.dtype is torch.bool or (
        not example.is_floating_point() and bool(((example == 0) | (example == 1)).all())
    ):
        visible = shown_value(example)
        if len(shape) != 2:
            return torch.full(tuple(shape), visible, dtype=example.dtype)
        lengths = torch.randint(1, shape[-1] + 1, (shape[0], 1), generator=generator)
        return ((torch.arange(shape[-1]) < lengths) == visible).to(example.dtype)
    if not example.is_floating_point():
        low, high = int(example.min()), int(example.max())
        return torch.randint(low, high + 1, tuple(shape), generator=generator).to(example.dtype)
    spread = example.float().std() if example.numel() > 1 else torch.tensor(1.0)
    noise = torch.randn(tuple(shape), generator=generator)
    return (noise * spread.nan_to_num(1.0) + example.float().mean()).to(example.dtype)


def shown_value(example: torch.Tensor) -> bool:
    """What a 0/1 mask holds where something is to be seen: 1 in attention masks, 0 in torch's key padding masks.

    Padding is at one end of the rows: at the other all of them agree. A row that sees nothing would promise nothing.
    """
    rows = example.bool().reshape(-1, example.shape[-1] if example.dim() else 1)
    ends = [rows[:, position] for position in (0, -1)] if rows.numel() else []
    return next((bool(end[0]) for end in ends if bool((end == end[0]).all())), True)


def _cast(leaf: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None or not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return leaf
    return leaf.to(dtype)
