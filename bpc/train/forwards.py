"""Forwards that accelerate wraps in autocast: a run's own ends with the run, an earlier run's takes no part in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from passes.ir.unwrap import innermost_forward

# What accelerate sets on a model it wraps. Its own unwrapping takes the forward's decorators off as well.
_WRAPPED = ("forward", "_original_forward")


@contextlib.contextmanager
def own_forwards(trainer: Any) -> Iterator[None]:
    """Inside, ``trainer.model`` begins with its own forward; afterwards it has what it had before.

    Autocast left around it would make every later use bfloat16, and cannot be traced.
    """
    model: nn.Module | None = trainer.model  # None in a search: each trial makes its own
    before: dict[str, Any] = {}
    if model is not None:
        before = {name: model.__dict__[name] for name in _WRAPPED if name in model.__dict__}
        if "_original_forward" in before:
            own = innermost_forward(model)
            _take_off(model)
            if own is not None:
                model.__dict__["forward"] = own
    try:
        yield
    finally:
        _take_off(trainer.model)
        if model is not None:
            _take_off(model)
            model.__dict__.update(before)


def _take_off(model: nn.Module | None) -> None:
    if model is not None:
        for name in _WRAPPED:
            model.__dict__.pop(name, None)
