"""What a mask does to the tensor it is for."""

from __future__ import annotations

import torch


def masked(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A new tensor with exact zeros where ``mask`` (bool, of its shape) is False, whatever stood there."""
    return tensor.masked_fill(~mask.to(tensor.device), 0)
