"""Where rounding is too blunt a judge: the small graph in float64 against the masked one in float64.

They compute the same but for the numbers that only the small graph holds, folded biases and constants: those were
rounded to the model's precision when they were written. With S the small graph in float64, and S' the same after those
numbers were moved by their rounding:

    |S - M| <= FACTOR · max |S - S'| + what `passes.verify.floor` would allow in float64
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.ir.graph import get_attribute
from passes.verify.record import Reference, Trial
from passes.verify.run import Casts, exact_run


@dataclass(frozen=True)
class Exactness:
    """``used``: the largest share of what is allowed; above 1 is an error. ``error``: the |S - M| there."""

    used: float
    error: float


def exactness(small: fx.GraphModule, reference: Reference, trial: Trial, anew: Collection[str]) -> Exactness | None:
    """Compare on one input. ``anew``: names of the numbers that only ``small`` holds.

    None where an operator of either graph has no float64 kernel: then float64 runs are not exact.
    """
    leaves = pytree.tree_leaves((trial.args, trial.kwargs))
    run = exact_run(small, leaves)
    if run.borrowed or not trial.exact:
        return None
    moved = exact_run(small, leaves, _moved(small, anew)) if anew else run
    worst = 0.0, 0.0
    for sample, bounds, value, shifted in zip(
        trial.expected, reference.bounds, run.outputs, moved.outputs, strict=True
    ):
        if bounds is not None and value.numel():
            worst = max(worst, bounds.exactly(sample, value, shifted))
    return Exactness(*worst)


def _moved(graph_module: fx.GraphModule, names: Collection[str]) -> Casts:
    """Float64 numbers for ``names`` that lie within two units of rounding of theirs."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for name in sorted(names):
        tensor = get_attribute(graph_module, name)
        if tensor.is_floating_point():
            share = 4 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 2
            shifted = tensor.detach().double() * (1 + share.to(tensor.device) * torch.finfo(tensor.dtype).eps)
            pairs.append((tensor, shifted))
    return Casts(pairs)


def numbers_anew(small: fx.GraphModule, masked: fx.GraphModule) -> set[str]:
    """Names of the numbers that ``small`` does not have from ``masked``: new ones, and vectors that are others."""
    known = _numbers(masked)
    return {
        name
        for name, tensor in _numbers(small).items()
        if name not in known
        or (tensor.dim() <= 1 and not (tensor.shape == known[name].shape and torch.equal(tensor, known[name])))
    }


def _numbers(graph_module: fx.GraphModule) -> dict[str, torch.Tensor]:
    names = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    return {name: get_attribute(graph_module, name) for name in names}
