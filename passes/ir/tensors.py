"""Tensor arithmetic that several stages share."""

from __future__ import annotations

import torch


def apply_mask(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``tensor`` with exact zeros where ``mask`` (bool, of its shape, True = kept) is False; also over infinities."""
    return tensor.masked_fill(~mask.to(tensor.device), 0)
