"""Example inputs: from what users hand in to the (args, kwargs) a model is traced with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from passes.frontend.dummies import dummy_inputs
from passes.ir.info import TraceError

aten = torch.ops.aten


def normalise_inputs(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) from a dict, a tuple or list, a tensor, or None (the model's ``dummy_inputs``)."""
    if example_inputs is None:
        example_inputs = dummy_inputs(model)
        if example_inputs is None:
            raise TraceError(
                f"{type(model).__name__} has no `dummy_inputs`; pass example_inputs, e.g. "
                "{'input_ids': torch.ones(2, 16, dtype=torch.long)}"
            )
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), {name: value for name, value in example_inputs.items() if value is not None}
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return tuple(example_inputs), {}
    raise TraceError(
        f"example_inputs is a {type(example_inputs).__name__}; pass a dict of keyword arguments, a tuple or a tensor"
    )


def widen_unit_dims(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Repeat the example where batch or sequence is 1: torch.export specialises sizes 0 and 1."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim() > 0]
    if tensors and all(t.shape[0] == 1 for t in tensors):
        leaves = [_repeat(leaf, 0) for leaf in leaves]
    tokens = [leaf for leaf in leaves if _is_token_like(leaf)]
    if tokens and all(t.shape[1] == 1 for t in tokens):
        leaves = [_repeat(leaf, 1, 3) if _is_token_like(leaf) else leaf for leaf in leaves]
    return pytree.tree_unflatten(leaves, spec)


def _is_token_like(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() == 2 and not leaf.is_floating_point()


def _repeat(leaf: Any, dim: int, count: int = 2) -> Any:
    if not isinstance(leaf, torch.Tensor) or leaf.dim() <= dim:
        return leaf
    return torch.cat([leaf] * count, dim)
