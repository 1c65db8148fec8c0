"""Copies of users' modules, which may hold tensors that `copy.deepcopy` refuses, and forwards wrapped for training."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from passes.ir.unwrap import plain_forwards


def share_copy(model: nn.Module) -> nn.Module:
    """A copy of the module tree that shares every tensor."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return _copy(model, {id(t): t for t in tensors} | _computed(model))


def full_copy(model: nn.Module, shared: Iterable[Any] = ()) -> nn.Module:
    """A copy with parameters and buffers of its own, but for what it holds of ``shared``."""
    return _copy(model, {id(held): held for held in shared} | _computed(model))


def _copy(model: nn.Module, known: dict[int, Any]) -> nn.Module:
    """Without the autocast that a trainer left around forwards: a copy computes what the model's own code says."""
    with plain_forwards(model):
        copied = copy.deepcopy(model, known)
    for module in copied.modules():
        module.__dict__.pop("_original_forward", None)  # accelerate's
    return copied


def _computed(model: nn.Module) -> dict[int, Any]:
    """For deepcopy: what hooks left behind, such as the ``weight`` that torch.nn.utils.prune computes in each forward.

    It belongs to the graph of that forward; the copy's own forward computes it anew.
    """
    return {id(t): t.detach() for module in model.modules() for t in _plain_tensors(module) if not t.is_leaf}


def _plain_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    return (value for value in module.__dict__.values() if isinstance(value, torch.Tensor))
