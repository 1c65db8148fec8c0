"""Masks on disk: safetensors, one bool tensor per parameter, True where an entry is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from passes import MaskError


def save_masks(masks: Mapping[str, Tensor], path: str | Path) -> None:
    """Write masks; the file appears under its name only when it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({name: mask.bool().cpu().contiguous() for name, mask in masks.items()}, partial, {"format": "bpc-masks"})
    os.replace(partial, path)


def load_masks(path: str | Path) -> dict[str, Tensor]:
    """{parameter name: bool tensor}. Masks stored as 0 and 1 of another dtype are taken as well.

    Raises `passes.MaskError` for a file that is no safetensors file, and for values other than 0 and 1.
    """
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise MaskError(f"{path} is no safetensors file: {error}") from error
    masks = {}
    for name, tensor in stored.items():
        if tensor.dtype is not torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
            raise MaskError(f"{path}: {name!r} holds values other than 0 and 1, so it is no mask")
        masks[name] = tensor.bool()
    return masks


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
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0)
