"""A model's own example inputs (transformers' ``dummy_inputs``), made fit to trace and to verify with."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn


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
