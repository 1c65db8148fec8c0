"""Room for large tensors. Filling fresh pages of 4 kB costs more than the numbers that are put there."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence

import torch

_LARGE = 2**22  # bytes
_PAGE = mmap.PAGESIZE
# Linux's advice, for systems that give large pages to those who ask; others are left alone.
_HUGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None) if sys.platform == "linux" else None
_C = ctypes.CDLL(None) if _HUGE is not None else None


def unfilled(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """`torch.empty`, in large pages where the system has them."""
    tensor = torch.empty(tuple(shape), dtype=dtype)
    if _C is not None and tensor.device.type == "cpu" and type(tensor) is torch.Tensor and tensor.nbytes >= _LARGE:
        begin = -(-tensor.data_ptr() // _PAGE) * _PAGE
        length = tensor.data_ptr() + tensor.nbytes - begin
        _C.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), _HUGE)  # refused: the pages are small ones
    return tensor
