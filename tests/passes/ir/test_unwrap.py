"""Wrapped models: traced as what they wrap, left as they were, parameters under the wrapper's names."""

from __future__ import annotations

import functools
from types import MethodType

import torch
from torch import nn

import passes
from passes.ir.info import trace_info

X = torch.randn(3, 4)


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()


def test_names_are_those_of_the_wrapper() -> None:
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[:3] = False
    for wrapped, prefix in ((nn.DataParallel(model()), "module."), (torch.compile(model()), "_orig_mod.")):
        graph = passes.trace(wrapped, X)
        assert set(trace_info(graph).aliases) == {name for name, _ in wrapped.named_parameters()}
        small = passes.shrink(graph, {f"{prefix}0.weight": mask}).graph_module
        assert small.get_parameter(f"{prefix}0.weight").shape == (3, 4)


def test_a_forward_wrapped_for_mixed_precision_is_looked_through_and_put_back() -> None:
    inner = model()
    expected = inner(X)

    @functools.wraps(nn.Sequential.forward)
    def wrapped(self: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return nn.Sequential.forward(self, x)

    inner.forward = MethodType(wrapped, inner)  # type: ignore[method-assign]
    before = inner.forward
    torch.testing.assert_close(passes.trace(inner, X)(X), expected)
    assert inner.__dict__["forward"] is before


def test_accelerate_style_hooks_are_looked_through() -> None:
    inner = model()
    expected = inner(X)
    old = inner[0].forward

    def hooked(module: nn.Module, *args: torch.Tensor) -> torch.Tensor:
        return old(*args) * float(args[0].sum() > -1e9)  # cannot be traced

    inner[0].forward = functools.update_wrapper(functools.partial(hooked, inner[0]), old)
    torch.testing.assert_close(passes.trace(inner, X)(X), expected)
    assert isinstance(inner[0].__dict__["forward"], functools.partial)
