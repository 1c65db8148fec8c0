"""Moved to `passes.structure.roles`; this name stays until 0.2."""

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    warnings.warn("passes.analysis.roles is passes.structure.roles now", DeprecationWarning, stacklevel=2)
    return getattr(import_module("passes.structure.roles"), name)
