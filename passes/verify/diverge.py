"""Where two graphs part: the first value whose difference rounding does not explain."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.verify.floor import Bounds, Sample
from passes.verify.run import Casts, Run


def first_divergence(
    reference: fx.GraphModule, candidate: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """Name the first value of equal name and shape in which the two graphs differ by more than rounding.

    Values that differ but lead to the outputs only through values that agree are passed over: a rewrite may write
    other numbers where nothing reads them. Both graphs run side by side, the reference in float64 too, and values are
    freed once they are compared.
    """
    excess = _excesses(reference, candidate, pytree.tree_leaves((args, kwargs)))
    differing = {node for node, (ratio, _) in excess.items() if not ratio <= 1}
    guilty, stack = set(), [reference.graph.output_node()]
    seen = set(stack)
    while stack:
        for node in stack.pop().all_input_nodes:
            if node in seen or (node in excess and node not in differing):
                continue
            seen.add(node)
            stack.append(node)
            guilty |= {node} & differing
    for node in reference.graph.nodes:
        if node in guilty:
            ratio, error = excess[node]
            return f"First value that differs: {node.name} (by {error:.3e}, {ratio:.3g} times what rounding explains)."
    if differing:
        return "Values that differ lead to no output; the difference arises where shapes are no longer equal."
    return "Every value of equal name and shape agrees within rounding."


def _excesses(
    reference: fx.GraphModule, candidate: fx.GraphModule, leaves: list[Any]
) -> dict[fx.Node, tuple[float, float]]:
    """{node of the reference: (share of what rounding explains, difference)} for values that both graphs have."""
    casts = Casts()
    own = Run(reference, leaves)
    exact = Run(reference, leaves, torch.float64, twin=own, casts=casts)
    coarse = Run(reference, leaves, torch.float32, twin=own, casts=casts)
    small = Run(candidate, leaves)
    ahead = iter(candidate.graph.nodes)
    names = {n.name for n in candidate.graph.nodes if n.op == "call_function"}
    shared = {n.name for n in reference.graph.nodes if n.op == "call_function" and n.name in names}
    waiting: dict[str, torch.Tensor] = {}  # of the candidate, met before the reference's
    found = {}
    with torch.no_grad():
        for node in reference.graph.nodes:
            for run in (own, exact, coarse):
                run.step(node)
            while node.name in shared and node.name not in waiting:
                other = next(ahead)
                value = small.step(other)
                if other.name in shared:
                    waiting[other.name] = value
                small.free(other)
            value = waiting.pop(node.name, None)
            if value is not None and _comparable(value, own.env[node]):
                m = own.env[node]
                sample = Sample(m, exact.env[node], coarse.env[node] if m.dtype is torch.float64 else None)
                found[node] = Bounds([sample]).excess(sample, value)
            for run in (own, exact, coarse):
                run.free(node)
            casts.clear()
    return found


def _comparable(small: Any, masked: Any) -> bool:
    if not isinstance(small, torch.Tensor) or not isinstance(masked, torch.Tensor):
        return False
    return masked.is_floating_point() and masked.shape == small.shape and masked.numel() > 0
