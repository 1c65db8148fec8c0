"""What the module view has to reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from passes.ir.info import trace_info
from passes.verify.run import outputs_of


@dataclass(frozen=True)
class Check:
    """Example inputs and the outputs the module view has to reproduce on them."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[torch.Tensor, ...]
    tolerance: float

    def failure(self, module: nn.Module) -> str | None:
        """None if the module computes the outputs; else what went wrong."""
        was_training = module.training
        module.eval()
        try:
            with torch.no_grad():
                leaves = pytree.tree_leaves(module(*self.args, **self.kwargs))
        except Exception as error:  # the forward is the user's: anything can come out of it
            return f"its forward fails: {type(error).__name__}: {error}"
        finally:
            module.train(was_training)
        actual = [t for t in leaves if isinstance(t, torch.Tensor)]
        for expected, got in zip(self.outputs, actual, strict=False):
            if expected.shape != got.shape:
                return f"its output has shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
            if expected.is_floating_point():
                difference = float((expected.double() - got.double()).abs().max())
                if not difference <= self.tolerance * max(1.0, float(expected.abs().max())):
                    return f"its output differs from the graph's by {difference:.2e}"
        return None


def example_check(small: fx.GraphModule, tolerance: float) -> Check:
    """What a small graph makes of the example it was traced with."""
    info = trace_info(small)
    return Check(info.args, info.kwargs, tuple(outputs_of(small, info.args, info.kwargs)), tolerance)
