"""Running a graph: its output tensors, with the same random numbers every time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

aten = torch.ops.aten


_SEED = 0  # of the random numbers that a graph draws itself


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        yield


def outputs_of(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The output tensors. A graph that draws random numbers (masked auto-encoders) draws the same ones every time."""
    with same_random_numbers(), torch.no_grad():
        return [t for t in pytree.tree_leaves(graph_module(*args, **kwargs)) if isinstance(t, torch.Tensor)]
