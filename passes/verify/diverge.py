"""Where two graphs part: the first value that differs."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.verify.run import same_random_numbers

aten = torch.ops.aten


def first_divergence(
    reference: fx.GraphModule,
    candidate: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tolerance: float,
) -> str:
    """Name the first value of equal name and shape in which the two graphs differ."""
    expected = _record(reference, args, kwargs)
    actual = _record(candidate, args, kwargs)
    for name, value in actual.items():
        other = expected.get(name)
        if other is None or other.shape != value.shape or not value.is_floating_point():
            continue
        difference = float((other.double() - value.double()).abs().max()) if value.numel() else 0.0
        if not difference <= tolerance * max(1.0, float(other.double().abs().max())):
            return f"First value that differs: {name} (by {difference:.3e})."
    return "No intermediate value of equal shape differs."


def _record(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                values[n.name] = result.detach()
            return result

    flat = pytree.tree_leaves((args, kwargs))
    with same_random_numbers(), torch.no_grad():
        Recorder(graph_module).run(*flat, enable_io_processing=False)
    return values
