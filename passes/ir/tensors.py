"""Large tensors in pieces: what a mask does to one, and where it is not 0."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_PIECE = 2**18  # entries: what is made of them on the way stays in the processor's cache
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def pieces(tensor: torch.Tensor) -> Iterator[slice]:
    """Ranges along the first dim of a tensor (which has one) that cover it, each of some 2^18 entries."""
    step = max(1, _PIECE * len(tensor) // max(tensor.numel(), 1))
    for begin in range(0, len(tensor), step):
        yield slice(begin, begin + step)


def masked(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A new tensor with exact zeros where ``mask`` (bool, of its shape) is False, whatever stood there."""
    bits = _BITS.get(tensor.element_size())
    if tensor.device.type != "cpu" or tensor.dim() == 0 or not tensor.is_floating_point() or bits is None:
        return tensor.masked_fill(~mask.to(tensor.device), 0)
    tensor, mask = tensor.detach(), mask.cpu()
    zeroed = torch.empty_like(tensor)
    for rows in pieces(tensor):  # a product of integers is three times as fast, and 0 times a NaN's bits is 0
        torch.mul(tensor[rows].view(bits), mask[rows].contiguous(), out=zeroed[rows].view(bits))
    return zeroed


def not_zero(tensor: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Where a tensor is not 0, and ``mask`` (bool, of its shape) True: bool, of its shape."""
    found = tensor.bool()  # some times as fast as != 0; NaN is True to both
    return found if mask is None else found.logical_and(mask.contiguous())  # a bool tensor is its own `bool()`


def without_copies(tensor: torch.Tensor) -> torch.Tensor:
    """An expanded tensor with size 1 where one entry stands for all; broadcasting gives it back."""
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1 and stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor
