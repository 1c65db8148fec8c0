"""Costs by units kept: counted parameters and bytes, or seconds measured on this machine.

Seconds come from a handful of probes, models whose attentions or feed-forward networks all keep the same share:

    time(a, f) = fixed + attention(a) + ffn(f)          a, f: kept shares, attention(0) = ffn(0) = 0

with attention(·) and ffn(·) linear between the probes, and a layer's part in proportion to its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

import passes
from bpc.oneshot.search import Costs
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import Target
from passes.ir.graph import get_attribute
from passes.ir.sizes import example_sizes, tensor_of
from passes.structure.role import Family
from passes.structure.weight_uses import weight_uses

_SHARES = {Family.ATTENTION: (0.0, 0.34, 0.67), Family.FFN: (0.0, 0.25, 0.5)}


def counted(graph: fx.GraphModule, sublayers: Sequence[Sublayer], target: Target) -> tuple[Costs, float]:
    """Costs in parameters or bytes, and the budget that ``target`` allows."""
    unit = "bytes" if target.bytes is not None else "parameters"

    def size(tensor: Tensor) -> int:
        return tensor.numel() * (tensor.element_size() if unit == "bytes" else 1)

    whole = sum(size(p) for p in graph.parameters())
    own = {s.name: sum(size(get_attribute(graph, weight)) for weight in s.parts) for s in sublayers}
    tables = {s.name: np.arange(s.count + 1) / s.count * own[s.name] for s in sublayers}
    costs = Costs(whole - sum(own.values()), tables, unit)
    if target.bytes is not None:
        return costs, float(target.bytes)
    if target.params is not None:
        return costs, target.params * whole
    assert target.density is not None
    return costs, costs.fixed + target.density * sum(own.values())


def columns_mask(graph: fx.GraphModule, sublayer: Sublayer, units: Tensor) -> Tensor:
    """The mask of a sublayer's weight, as stored, that keeps ``units`` (bool)."""
    features = units.repeat_interleave(sublayer.size)
    mask = features if sublayer.out_dim == 0 else features[:, None]
    return mask.expand(tuple(get_attribute(graph, sublayer.weight).shape)).clone()


def probes_of(sublayers: Sequence[Sublayer]) -> list[dict[Family, float]]:
    """The kept shares of each probe; the first is the original."""
    present = [f for f in _SHARES if any(s.family is f for s in sublayers)]
    return [{}, *({family: share} for family in present for share in _SHARES[family])]


def probe_graph(graph: fx.GraphModule, sublayers: Sequence[Sublayer], shares: Mapping[Family, float]) -> fx.GraphModule:
    """The small graph with that share of each family's units; which ones does not matter to its speed."""
    masks = {}
    for sublayer in sublayers:
        share = shares.get(sublayer.family, 1.0)
        units = torch.arange(sublayer.count) < round(share * sublayer.count)
        if not units.all():
            masks[sublayer.weight] = columns_mask(graph, sublayer, units)
    return passes.shrink(graph, masks, verify=False).graph_module if masks else graph


def timed(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    target: Target,
    seconds: Sequence[float],
) -> tuple[Costs, float]:
    """Costs in seconds from the times of `probes_of`'s models, and the budget that ``target`` allows."""
    assert target.speedup is not None
    dense, *others = seconds
    points: dict[Family, dict[float, float]] = {}
    for shares, time in zip(probes_of(sublayers)[1:], others, strict=True):
        ((family, share),) = shares.items()
        points.setdefault(family, {1.0: dense})[share] = time
    work = _work(graph, sublayers)
    tables, fixed = {}, dense
    for family, times in points.items():
        shares_known = sorted(times)
        rising = np.maximum.accumulate([times[share] for share in shares_known])
        spent = rising - rising[0]
        fixed -= spent[-1]
        members = [s for s in sublayers if s.family is family]
        total = sum(work[s.name] for s in members)
        for member in members:
            curve = np.interp(np.arange(member.count + 1) / member.count, shares_known, spent)
            tables[member.name] = curve * work[member.name] / total
    return Costs(fixed, tables, "s"), dense / target.speedup


def measure(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    target: Target,
    *,
    repeats: int = 7,
    tick: Callable[[], None] = lambda: None,
) -> list[float]:
    """Seconds of `probes_of`'s models on this machine, in turns; raises `bpc.timing.alternate.BenchmarkError`."""
    from bpc.bench.comparison import time_models

    graphs: dict[str, Any] = {}
    for index, shares in enumerate(probes_of(sublayers)):
        graphs[str(index)] = probe_graph(graph, sublayers, shares)
        tick()
    return [timing.best for timing in time_models(graphs, repeats=repeats, **timing_options(target)).values()]


def timing_options(target: Target) -> dict[str, Any]:
    """What `bpc.bench.comparison.time_models` is told of a target."""
    batch, length = target.shape
    return {
        "batch": batch,
        "length": length,
        "runtime": target.runtime,
        "dtype": target.dtype,
        "threads": target.threads,
        "clock": "cpu" if target.threads == 1 else "wall",  # of one thread, what other work on the machine leaves alone
    }


def _work(graph: fx.GraphModule, sublayers: Sequence[Sublayer]) -> dict[str, float]:
    """Multiplications of each sublayer's linears on the traced example: how layers of one family share its time."""
    by_weight: dict[str, float] = {}
    for node, use in weight_uses(graph).items():
        value = tensor_of(node)
        if isinstance(value, Tensor):
            features = get_attribute(graph, use.weight).shape[1 - use.out_dim]
            elements = np.prod(example_sizes(value.shape), dtype=float)
            by_weight[use.weight] = by_weight.get(use.weight, 0.0) + float(elements) * features
    return {s.name: sum(by_weight.get(weight, 0.0) for weight in s.parts) or 1.0 for s in sublayers}
