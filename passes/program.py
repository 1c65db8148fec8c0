"""Moved to `passes.frontend.trace` and `passes.ir.info`; this name stays until 0.2."""

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    warnings.warn("passes.program is passes.frontend.trace now", DeprecationWarning, stacklevel=2)
    home = "passes.ir.info" if name in ("TraceError", "TraceInfo", "trace_info") else "passes.frontend.trace"
    return getattr(import_module(home), name)
