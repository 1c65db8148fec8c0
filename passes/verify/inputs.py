"""Inputs to verify on: the example, and random ones of other sizes that are like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.ir.info import trace_info
from passes.ir.sizes import tensor_of
from passes.verify.sizes import Sizes, shape_at, size_choices
from passes.verify.uses import use_of
from passes.verify.values import draw, repeat_example, shown_value

__all__ = ["Draw", "fresh_inputs", "shown_value", "trial_inputs"]


@dataclass(frozen=True)
class Draw:
    """Inputs for one trial. ``example``: the traced ones. ``fresh``: of other sizes than those."""

    description: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    example: bool = False
    fresh: bool = False


def fresh_inputs(
    graph_module: fx.GraphModule, seed: int = 0, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """(description, args, kwargs): the example, then random inputs with other batch and sequence sizes.

    Sizes keep the ranges and conditions of the trace; batch 1 and a length beyond the example's are among them.
    Integers that pick rows of a table come from all of it, others from the example's range; masks hide a random end of
    each row (never all of it; see `shown_value`), floats follow the example's mean and spread. ``dtype``: of the
    floats, instead of the example's. A model may refuse what was drawn: `record_reference` then tries other numbers.
    """
    for choices in trial_inputs(graph_module, seed):
        first = choices[0]
        args, kwargs = pytree.tree_map(lambda leaf: _cast(leaf, dtype), (first.args, first.kwargs))
        yield first.description, args, kwargs


def trial_inputs(graph_module: fx.GraphModule, seed: int = 0) -> list[list[Draw]]:
    """For each trial what to try, the best first: random numbers, then the example's own at the trial's sizes."""
    info = trace_info(graph_module)
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder" and tensor_of(n) is not None]
    uses = [use_of(node) for node in placeholders]
    generator = torch.Generator().manual_seed(seed)

    def made(new: Sequence[torch.Tensor]) -> Draw:
        numbers = iter(new)
        filled = [next(numbers) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, spec)
        fresh = any(a.shape != b.shape for a, b in zip(new, tensors, strict=True))
        return Draw(", ".join("x".join(map(str, t.shape)) for t in new), args, kwargs, fresh=fresh)

    def choices(sizes: Sizes, number: int) -> list[Draw]:
        shapes = [shape_at(node, sizes) for node in placeholders]
        random = [
            draw(tensor, shape, use, generator, padded_left=number % 2 == 1)
            for tensor, shape, use in zip(tensors, shapes, uses, strict=True)
        ]
        repeated = [repeat_example(tensor, shape) for tensor, shape in zip(tensors, shapes, strict=True)]
        return [made(random), *([made(repeated)] if shapes != [tuple(t.shape) for t in tensors] else [])]

    trials = [[Draw("example", info.args, info.kwargs, example=True)]]
    for number, sizes in enumerate(size_choices(placeholders, tensors)):
        trials.append([one for choice in sizes for one in choices(choice, number)])
    return trials


def _cast(leaf: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None or not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return leaf
    return leaf.to(dtype)
