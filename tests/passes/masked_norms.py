"""A model whose norms run over some channels only, written out from the definition: the reference for width masks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def masked_norms(model: nn.Module, parameters: Mapping[str, tuple[int, ...]], kept: Tensor) -> nn.Module:
    """A copy of ``model``: ``parameters`` are 0 where their dims along the stream go, and every norm over it is

        μ = Σ z x / Σ z,   σ² = Σ z (x - μ)² / Σ z,   y = z · (w (x - μ) / √(σ² + ε) + b)

    without μ (and b) for RMSNorms. It knows norms by their class names and shares nothing with the compiler.
    """
    model = copy.deepcopy(model)
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    with torch.no_grad():
        for name, dims in parameters.items():
            for dim in dims:
                named[name].mul_(kept.view([-1 if d == dim else 1 for d in range(named[name].dim())]))
    for module in model.modules():
        weight = module._parameters.get("weight")
        if "Norm" in type(module).__name__ and weight is not None and weight.shape == kept.shape:
            module.forward = _norm(module, kept)  # type: ignore[method-assign]
    return model


def _norm(module: Any, kept: Tensor) -> Any:
    z, eps = kept.double(), getattr(module, "eps", None) or getattr(module, "variance_epsilon", None)
    centred, bias = isinstance(module, nn.LayerNorm), getattr(module, "bias", None)
    if eps is None:
        eps = torch.finfo(module.weight.dtype).eps  # nn.RMSNorm's default

    def forward(x: Tensor) -> Tensor:
        x64 = x.double()
        mean = (z * x64).sum(-1, keepdim=True) / z.sum() if centred else 0.0
        variance = (z * (x64 - mean) ** 2).sum(-1, keepdim=True) / z.sum()
        weight = module.weight.double() + (1.0 if "Gemma" in type(module).__name__ else 0.0)
        y = (x64 - mean) / (variance + eps).sqrt() * weight
        return (z * (y if bias is None else y + bias.double())).to(x.dtype)

    return forward
