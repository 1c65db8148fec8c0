"""One trace or rewrite at a time, and nothing of it left behind in torch.

``torch.export`` patches torch while it runs, and so is no safe neighbour of another thread's trace or shrink.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import graph_module as fx_graph_module
from torch.fx.experimental.symbolic_shapes import ShapeEnv

P = ParamSpec("P")
R = TypeVar("R")

_LOCK = threading.RLock()
_depth = [0]  # of sessions inside each other, guarded by the lock
_environments: weakref.WeakSet[ShapeEnv] = weakref.WeakSet()


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Exclusive use of torch's tracing machinery; its global state is afterwards as it was, errors included.

    Restored: random numbers (torch's and Python's), default dtype, thread count, grad mode and the deterministic flag.
    Cleared: the caches in which torch keeps the symbols and the sources of every graph it ever made.
    """
    with _LOCK:
        outermost = _depth[0] == 0
        _depth[0] += 1
        try:
            with _torch_state() if outermost else contextlib.nullcontext():
                yield
        finally:
            _depth[0] -= 1


def exclusive(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run in a `session`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with session():
            return function(*args, **kwargs)

    return run


def forget_sizes_of(environment: ShapeEnv) -> None:
    """Empty this environment's cache of operators at the end of every session: torch never lets go of environments."""
    _environments.add(environment)


def _forget(key: str) -> None:
    fx_graph_module._loader.eval_cache.pop(key, None)
    linecache.cache.pop(key, None)


@contextlib.contextmanager
def _torch_state() -> Iterator[None]:
    sources = fx_graph_module._loader.eval_cache
    known = set(sources)
    python = random.getstate()
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        FakeTensorMode.cache_clear()
        for environment in _environments:
            environment.fake_tensor_cache.clear()
        for method in vars(ShapeEnv).values():  # their caches hold the symbols' environments
            getattr(method, "cache_clear", lambda: None)()
        for key in set(sources) - known:
            _forget(key)
