"""Example inputs: from what users hand in to the (args, kwargs) a model is traced with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

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
        return (), {name: _plain(value) for name, value in example_inputs.items() if value is not None}
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return tuple(_plain(value) for value in example_inputs), {}
    raise TraceError(
        f"example_inputs is a {type(example_inputs).__name__}; pass a dict of keyword arguments, a tuple or a tensor"
    )


def _plain(value: Any) -> Any:
    """Mappings of other kinds (a tokenizer's BatchEncoding) as the dict that torch.export knows."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


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


def dummy_inputs(model: nn.Module) -> dict[str, Any] | None:
    """Keyword arguments from ``model.dummy_inputs`` that its forward takes; None where it has none.

    A padding mask is added to tokens, and the key-value cache is switched off: what a served model gets as well.
    Attention masks are all ones: some models' own (T5's decoder mask) hide every key from some rows, where nothing is
    promised (docs/exactness.md); verification draws paddings of its own.
    """
    dummies = getattr(model, "dummy_inputs", None)
    if dummies is None:
        return None
    accepted = inspect.signature(model.forward).parameters
    found = {name: _visible(name, value) for name, value in dummies.items() if name in accepted}
    if "input_ids" in found and "attention_mask" in accepted:
        found.setdefault("attention_mask", torch.ones_like(found["input_ids"]))
    if "use_cache" in accepted:
        found.setdefault("use_cache", False)
    return found


def _visible(name: str, value: Any) -> Any:
    is_mask = name.endswith("attention_mask") and isinstance(value, torch.Tensor) and not value.is_floating_point()
    return torch.ones_like(value) if is_mask else value
