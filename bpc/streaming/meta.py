"""Running a module on the meta device: shapes without numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class _NoNumbers(TorchDispatchMode):
    """A number that a forward reads off a tensor is 0: a mask, say, that does not show everything."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return torch.zeros((), dtype=args[0].dtype).item()
        return func(*args, **(kwargs or {}))


def shapes_of(module: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> list[torch.Size]:
    """Shapes of what a module on the meta device makes of inputs there. Raises whatever its forward raises."""
    with torch.no_grad(), _NoNumbers():
        leaves = pytree.tree_leaves(module(*inputs[0], **inputs[1]))
    return [leaf.shape for leaf in leaves if isinstance(leaf, torch.Tensor)]
