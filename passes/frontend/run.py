"""Running the user's model, and graphs of it, without leaving a trace in either."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

_SEED = 0  # of the random numbers that a model draws itself


def own_copy(inputs: Any) -> Any:
    """The same inputs, tensors cloned: what a model writes into them is not the caller's."""
    with torch.inference_mode(False):
        return pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), inputs)


def run_model(run: Callable[..., Any], args: Any, kwargs: Any) -> list[torch.Tensor]:
    """The output tensors, computed without gradients and from the same random numbers every time.

    nn.TransformerEncoder's fused path, which zeroes padded rows and rounds otherwise, is left out: no export takes it.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(_SEED)
            return [t for t in pytree.tree_leaves(run(*args, **kwargs)) if isinstance(t, torch.Tensor)]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module's own training flag is back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """What the forward writes into its buffers is undone."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
