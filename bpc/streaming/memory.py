"""Freed memory goes back to the system at once."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_BYTES = 2**20


def give_back_freed_memory() -> None:
    """Let glibc map every allocation of a megabyte or more by itself; other C libraries are left alone.

    By itself it goes up to 32 MB, and what is smaller than that fragments a heap that never shrinks: gigabytes, where
    thousands of tensors of 10 MB come and go.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _BYTES)
