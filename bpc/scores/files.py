"""Masks written to disk and into weights. Files are read by `passes.masks`, which takes them from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bpc.writing import new_file
from passes import MaskError
from passes.ir.tensors import masked


def save_masks(masks: Mapping[str, Tensor], path: str | Path) -> None:
    """Write masks as safetensors, one bool tensor per parameter; the file gets its name only when it is complete."""
    stored = {
        name: mask.bool().cpu().clone().contiguous() for name, mask in masks.items()
    }  # tied: one tensor, two names
    with new_file(path) as staged:
        save_file(stored, staged, {"format": "bpc-masks"})


@torch.no_grad()
def multiply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero the masked entries of ``model``'s parameters in place. Raises `passes.MaskError` before touching any."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters:
            raise MaskError(f"mask for {name!r}: the model has no parameter of that name")
        if parameters[name].shape != mask.shape:
            raise MaskError(
                f"mask for {name!r} has shape {tuple(mask.shape)}; the parameter has {tuple(parameters[name].shape)}"
            )
    for name, mask in masks.items():
        parameters[name].copy_(masked(parameters[name], mask))
