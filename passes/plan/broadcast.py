"""Modules that are right by accident: one head of scores times two heads of values, which torch broadcasts.

A forward that views q, k and v with one head size makes that of a layer with one head whose values have twice as many
dims. Its outputs are right; a cache that allots keys and values alike, or an export, fails on it. So the products of
activations may broadcast in a small module where those of the model do, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_MATMUL = {torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.bmm, torch.Tensor.__matmul__}
Sizes = tuple[tuple[int, ...], ...]  # the leading dims of what is multiplied


class _Products(TorchFunctionMode):
    """Records what products of batches a forward computes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Sizes] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value = (*args, *(kwargs[n] for n in ("query", "key", "value") if n in kwargs))[:3]
            grouped = kwargs.get("enable_gqa", False)
            self.found.append(_leading((key, value) if grouped else (query, key, value)))
        elif func in _MATMUL:
            operands = [*args, *kwargs.values()][:2]
            if all(operand.dim() > 2 for operand in operands):
                self.found.append(_leading(operands))
        return func(*args, **kwargs)


def accidental_broadcast(model: nn.Module, small: nn.Module, run: Callable[[nn.Module], Any]) -> str | None:
    """What ``small`` broadcasts where ``model`` does not, in the same ``run``; None where there is no such product."""
    before, after = (_products(module, run) for module in (model, small))
    if len(before) != len(after):  # another way through the forward: nothing to set side by side
        before = [next(filter(_broadcasts, before), ())] * len(after)
    for own, sizes in zip(before, after, strict=True):
        if _broadcasts(sizes) and not _broadcasts(own):
            named = " with ".join(str(tuple(size)) for size in sizes)
            return f"it multiplies batches of {named}, which fit only because torch broadcasts them"
    return None


def _products(module: nn.Module, run: Callable[[nn.Module], Any]) -> list[Sizes]:
    with _Products() as products:
        run(module)
    return products.found


def _leading(operands: Sequence[torch.Tensor]) -> Sizes:
    return tuple(tuple(operand.shape[:-2]) for operand in operands)


def _broadcasts(sizes: Sizes) -> bool:
    """Whether a size of 1 meets another size, counted from the last dim."""
    longest = max(map(len, sizes), default=0)
    columns = zip(*((1,) * (longest - len(size)) + size for size in sizes), strict=True)
    return any(len(set(column)) > 1 for column in columns)
