"""The model inside what it is wrapped in: DataParallel, torch.compile, a forward wrapped for mixed precision.

Wrappers change where and how fast a model runs, not what it computes. They are looked through for the trace, and are
afterwards as they were; names of parameters are those of the wrapper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

_WRAPPERS: dict[type[nn.Module], str] = {
    nn.DataParallel: "module",
    DistributedDataParallel: "module",
    OptimizedModule: "_orig_mod",
}


def unwrap(model: nn.Module) -> tuple[nn.Module, str]:
    """(the model inside, what its parameters' names begin with in the wrapper: "" or "module.", say)."""
    prefix = ""
    while (attribute := next((a for kind, a in _WRAPPERS.items() if isinstance(model, kind)), None)) is not None:
        model = getattr(model, attribute)
        prefix += f"{attribute}."
    return model, prefix


@contextlib.contextmanager
def plain_forwards(model: nn.Module) -> Iterator[None]:
    """Inside, modules run the forward they were wrapped around (accelerate's hooks, autocast), not the wrapper's."""
    before = {module: dict(module.__dict__) for module in model.modules() if _is_wrapped(module)}
    for module in before:
        module.__dict__["_compiled_call_impl"] = None
        forward = innermost_forward(module)
        if forward is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, attributes in before.items():
            for name in ("forward", "_compiled_call_impl"):
                if name in attributes:
                    module.__dict__[name] = attributes[name]


def _is_wrapped(module: nn.Module) -> bool:
    return "forward" in module.__dict__ or module.__dict__.get("_compiled_call_impl") is not None


def innermost_forward(module: nn.Module) -> Any | None:
    """What is under the wrappers of an instance's forward; None if that is its class's own."""
    forward = module.__dict__.get("forward")
    while forward is not None:
        function = getattr(forward, "__func__", forward)
        if function is type(module).forward:
            return None
        below = getattr(function, "__wrapped__", None)
        if below is None:
            return forward
        forward = below if hasattr(below, "__self__") else MethodType(below, module)
    return None
