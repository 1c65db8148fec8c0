"""Measuring: dense against small, in time and in arithmetic (see `bpc.bench.comparison`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpc.bench.comparison import compare
    from bpc.results.comparison import Comparison

__all__ = ["Comparison", "compare"]

_HOMES = {"Comparison": "bpc.results.comparison", "compare": "bpc.bench.comparison"}


def __getattr__(name: str) -> Any:
    """Lazily: the timing workers import this package, and must load nothing but what they time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bpc.bench' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
