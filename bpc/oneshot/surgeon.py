"""Which units a linear needs least, when the others take over as well as they can (structured optimal brain surgeon).

With inputs X (tokens x features), G = XᵀX + ρI and a weight W (out x features), removing the features u and refitting
the others changes the squared error of the output by

    saliency(u) = tr(W_u [(G⁻¹)_uu]⁻¹ W_uᵀ)
    W   <-  W - W_u [(G⁻¹)_uu]⁻¹ (G⁻¹)_u:            the refit of all others
    G⁻¹ <-  G⁻¹ - (G⁻¹)_:u [(G⁻¹)_uu]⁻¹ (G⁻¹)_u:     the inverse without u

The least salient unit goes, and the next is chosen among what is left. (Frantar & Alistarh 2022, Kurtic et al. 2023)
"""

from __future__ import annotations

import torch
from torch import Tensor


def removal_order(weight: Tensor, gram: Tensor, size: int, share: float = 0.02) -> Tensor:
    """Units in the order in which to remove them, least needed first.

    Args:
        weight: (out, features), float64. gram: (features, features), float64, positive definite.
        size: input features of a unit; unit i is features i*size up to (i+1)*size.
        share: of the units that are left, this many go per step (at least one).

    Returns int64 (features / size).
    """
    inverse = torch.linalg.inv(gram)
    inverse = (inverse + inverse.T) / 2
    weight = weight.clone()
    alive = torch.arange(weight.shape[1] // size)
    order: list[Tensor] = []
    while alive.numel():
        saliency = _saliencies(weight, inverse, size)
        least = saliency.argsort()[: max(1, int(alive.numel() * share))]
        order.append(alive[least])
        features = (least[:, None] * size + torch.arange(size)).flatten()
        kept = torch.ones(weight.shape[1], dtype=torch.bool)
        kept[features] = False
        pivot = torch.linalg.solve(inverse[features][:, features], inverse[features])  # (removed, features)
        weight = (weight - weight[:, features] @ pivot)[:, kept]
        inverse = (inverse - inverse[:, features] @ pivot)[kept][:, kept]
        inverse = (inverse + inverse.T) / 2
        remaining = torch.ones(alive.numel(), dtype=torch.bool)
        remaining[least] = False
        alive = alive[remaining]
    return torch.cat(order)


def _saliencies(weight: Tensor, inverse: Tensor, size: int) -> Tensor:
    units = weight.shape[1] // size
    columns = weight.reshape(weight.shape[0], units, size).permute(1, 2, 0)  # (units, size, out)
    if size == 1:
        return columns.square().sum((1, 2)) / inverse.diagonal().clamp_min(torch.finfo(inverse.dtype).tiny)
    blocks = inverse.reshape(units, size, units, size)
    blocks = blocks[torch.arange(units), :, torch.arange(units)]  # (units, size, size)
    return (columns * torch.linalg.solve(blocks, columns)).sum((1, 2))
