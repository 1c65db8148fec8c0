"""Attention rows that see no key: found in a run, and followed to the outputs.

A row whose mask hides every key is 0 (fused kernels) or NaN (a softmax of minus infinities): its weights do not sum to
1, on which the folding of constant values rests. Nothing is promised there (docs/exactness.md): the padded positions of
a decoder whose batch is padded on the left, which nobody reads, are such rows. What is excluded is found by trying:
other numbers are put in place of those rows, twice; outputs that move depend on them, the others do not.

Masks of large negative numbers hide nothing in this sense: their rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.ops.arguments import arguments
from passes.ops.rule import Kind
from passes.ops.table import kind_of
from passes.verify.finite import check_linear_input
from passes.verify.run import Run


@dataclass(frozen=True)
class BlindRows:
    """``rows``: True where the value of ``node`` (broadcast to its shape) comes of a row that sees no key."""

    node: fx.Node
    rows: torch.Tensor


def find_blind_rows(node: fx.Node, run: Run) -> list[BlindRows]:
    """Those of an attention or a softmax that ``run`` has just evaluated; empty if every row sees something."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    given = arguments(node)
    mask = next((given[name] for name in ("attn_mask", "attn_bias") if name in given), None)
    if isinstance(mask, fx.Node):
        shown = run.env[mask]
        shown = shown if shown.dtype is torch.bool else shown != -torch.inf
        rows = ~shown.any(-1, keepdim=True)  # (…, queries, 1), as the output (…, queries, dims)
    elif kind_of(node) is Kind.SOFTMAX:
        scores: Any = given["self"]
        rows = (run.env[scores] == -torch.inf).all(given["dim"], keepdim=True)
    else:
        return []
    return [BlindRows(node, rows)] if bool(rows.any()) else []


def names_of(blind: Sequence[BlindRows]) -> str:
    names = [rows.node.name for rows in blind]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def moved_outputs(
    graph_module: fx.GraphModule,
    leaves: Sequence[Any],
    blind: Sequence[BlindRows],
    outputs: Sequence[Sequence[torch.Tensor]],
    *,
    check: bool,
) -> list[torch.Tensor]:
    """Per output a bool tensor of its shape: what depends on blind rows.

    ``outputs``: those of the run in the graph's own precision, and of the run in float64. Each is repeated with other
    numbers in place of those rows. ``check``: raise `NotFiniteError` there as `check_linear_input` does.
    """
    own = Run(graph_module, leaves)
    exact = Run(graph_module, leaves, torch.float64, twin=own)
    rows = {b.node: b.rows for b in blind}
    generators = {run: torch.Generator().manual_seed(seed) for seed, run in enumerate((own, exact))}
    with torch.no_grad():
        for node in graph_module.graph.nodes:
            for run, generator in generators.items():
                run.step(node)
                if node in rows:
                    run.env[node] = _replace(node, run.env[node], rows[node], generator)
            if check:
                check_linear_input(node, own)
            own.free(node)
            exact.free(node)
            exact.casts.clear()
    moved = [torch.zeros(t.shape, dtype=torch.bool, device=t.device) for t in outputs[0]]
    for run, before in zip((own, exact), outputs, strict=True):
        moved = [m | (a != b) for m, a, b in zip(moved, before, run.outputs, strict=True)]
    return moved


def _replace(node: fx.Node, value: Any, rows: torch.Tensor, generator: torch.Generator) -> Any:
    """Numbers as others of the value are, in ``rows``."""
    if isinstance(value, tuple):  # an attention kernel that returns more than its output
        return (_replace(node, value[0], rows, generator), *value[1:])
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    if kind_of(node) is Kind.SOFTMAX:
        return torch.where(rows, noise.softmax(arguments(node)["dim"]), value)
    others = value[(~rows & torch.isfinite(value))]
    return torch.where(rows, noise * (others.std() if others.numel() > 1 else 1.0), value)
