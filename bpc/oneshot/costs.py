"""Costs by units kept: counted parameters and bytes, or seconds measured on this machine.

Seconds come from a handful of probes, models whose attentions or feed-forward networks all keep the same share:

    time(a, f) = fixed + attention(a) + ffn(f)          a, f: kept shares, attention(0) = ffn(0) = 0

with attention(·) and ffn(·) linear between the probes, and a layer's part in proportion to its arithmetic. Where heads
may be narrowed, probes whose heads are all half as wide say what part of an attention's time goes with their dims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

import passes
from bpc.costs import Costs
from bpc.oneshot.heads import Heads
from bpc.oneshot.masks import columns_mask, narrow_keys
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import Target
from bpc.results.comparison import this_machine
from bpc.timing.alternate import available_threads
from bpc.timing.remember import remembered
from passes.ir.graph import get_attribute
from passes.ir.sizes import example_sizes, tensor_of
from passes.rewrite.turn_heads import HeadFeatures
from passes.structure.role import Family
from passes.structure.weight_uses import weight_uses

_SHARES = {Family.ATTENTION: (0.0, 0.34, 0.67), Family.FFN: (0.0, 0.25, 0.5)}


def counted(
    graph: fx.GraphModule, sublayers: Sequence[Sublayer], target: Target, heads: Mapping[str, Heads] | None = None
) -> tuple[Costs, float]:
    """Costs in parameters or bytes, and the budget that ``target`` allows."""
    unit = "bytes" if target.bytes is not None else "parameters"

    def size(tensor: Tensor) -> int:
        return tensor.numel() * (tensor.element_size() if unit == "bytes" else 1)

    whole = sum(size(p) for p in graph.parameters())
    own = {s.name: sum(size(get_attribute(graph, weight)) for weight in s.parts) for s in sublayers}
    tables = {s.name: np.arange(s.count + 1) / s.count * own[s.name] for s in sublayers}
    shares = {s.name: _own_shares(graph, s, heads[s.name]) for s in sublayers if heads and s.name in heads}
    costs = Costs(whole - sum(own.values()), tables, unit, shares)
    if target.bytes is not None:
        return costs, float(target.bytes)
    if target.params is not None:
        return costs, target.params * whole
    assert target.density is not None
    return costs, costs.fixed + target.density * sum(own.values())


def _own_shares(graph: fx.GraphModule, sublayer: Sublayer, heads: Heads) -> tuple[float, float]:
    """Of the numbers in an attention's weights, those that go with the dims of values, and of queries and keys."""

    def held(*operands: HeadFeatures | None) -> float:
        sizes = [(get_attribute(graph, o.weight).numel() // _length(graph, o)) * o.index.numel() for o in operands if o]
        return sum(sizes) / whole if len(sizes) == len(operands) else 0.0

    whole = sum(get_attribute(graph, weight).numel() for weight in sublayer.parts)
    return held(heads.value, heads.output), held(heads.query, heads.key)


def _length(graph: fx.GraphModule, features: HeadFeatures) -> int:
    return int(get_attribute(graph, features.weight).shape[features.dim])


Probe = dict[str, float]  # kept shares of heads, of dims, or of the dims inside heads: by family, "values", "keys"


def probes_of(sublayers: Sequence[Sublayer], heads: Mapping[str, Heads], alike: bool) -> list[Probe]:
    """What is kept in each probe; the first is the original."""
    present = [f for f in _SHARES if any(s.family is f for s in sublayers)]
    probes: list[Probe] = [{}, *({str(family): share} for family in present for share in _SHARES[family])]
    values = any(h.value is not None for h in heads.values())
    keys = any(h.key is not None for h in heads.values())
    if alike:
        return [*probes, *([{"values": 0.5, "keys": 0.5}] if values and keys else [])]
    return [*probes, *([{"values": 0.5}] if values else []), *([{"keys": 0.5}] if keys else [])]


def probe_graph(
    graph: fx.GraphModule, sublayers: Sequence[Sublayer], heads: Mapping[str, Heads], probe: Probe
) -> fx.GraphModule:
    """The small graph that keeps these shares; which units and dims they are does not matter to its speed."""
    masks: dict[str, Tensor] = {}
    for sublayer in sublayers:
        share, own = probe.get(sublayer.family, 1.0), heads.get(sublayer.name)
        features = (torch.arange(sublayer.count) < round(share * sublayer.count)).repeat_interleave(sublayer.size)
        if own is not None and own.output is not None:
            dims = own.output.dims
            features[own.output.index[:, round(probe.get("values", 1.0) * dims) :].flatten()] = False
            narrow_keys(graph, own, round(probe.get("keys", 1.0) * dims), masks)
        if not features.all():
            masks[sublayer.weight] = columns_mask(graph, sublayer, features)
    return passes.shrink(graph, masks, verify=False).graph_module if masks else graph


def timed(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    heads: Mapping[str, Heads],
    target: Target,
    seconds: Sequence[float],
    alike: bool,
) -> tuple[Costs, float]:
    """Costs in seconds from the times of `probes_of`'s models, and the budget that ``target`` allows."""
    assert target.speedup is not None
    dense, *others = seconds
    points: dict[str, dict[float, float]] = {}
    narrow: list[tuple[Probe, float]] = []
    for probe, time in zip(probes_of(sublayers, heads, alike)[1:], others, strict=True):
        if "values" in probe or "keys" in probe:
            narrow.append((probe, time))
        else:
            ((family, share),) = probe.items()
            points.setdefault(family, {1.0: dense})[share] = time
    work = _work(graph, sublayers)
    tables, fixed = {}, dense
    for family, times in points.items():
        shares_known = sorted(times)
        rising = np.maximum.accumulate([times[share] for share in shares_known])
        spent = rising - rising[0]
        fixed -= spent[-1]
        members = [s for s in sublayers if s.family == family]
        total = sum(work[s.name] for s in members)
        for member in members:
            curve = np.interp(np.arange(member.count + 1) / member.count, shares_known, spent)
            tables[member.name] = curve * work[member.name] / total
    narrowed = sum(float(tables[name][-1]) for name in heads)
    saved = {"values": 0.0, "keys": 0.0}
    for probe, time in narrow:
        for name, share in probe.items():
            saved[name] = max(0.0, dense - time) / max(narrowed, 1e-12) / len(probe) / (1 - share)
    by_values, by_keys = (min(share, 0.5) for share in saved.values())
    shares = {name: (by_values * (h.value is not None), by_keys * (h.key is not None)) for name, h in heads.items()}
    return Costs(fixed, tables, "s", shares), dense / target.speedup


def measured(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    heads: Mapping[str, Heads],
    target: Target,
    alike: bool,
    *,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Costs, float]:
    """`timed` by times of this machine: those it remembers of the same model and setting, or else new ones."""
    about = {
        "machine": asdict(this_machine(target.threads or available_threads())),
        "bpc": version("block-pruning-compiler"),
        "timing": timing_options(target),
        "model": _shape_digest(graph),
        "probes": probes_of(sublayers, heads, alike),
        "sublayers": [[s.name, s.size, s.count] for s in sublayers],
    }
    seconds = remembered(about, lambda: measure(graph, sublayers, heads, target, alike, tick=tick))
    return timed(graph, sublayers, heads, target, seconds, alike)


def _shape_digest(graph: fx.GraphModule) -> str:
    """Operators and sizes: what a model's time depends on, whatever its weights are."""
    shapes = {name: list(p.shape) for name, p in graph.named_parameters()}
    return hashlib.sha256(f"{graph.graph}{shapes}".encode()).hexdigest()


def measure(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    heads: Mapping[str, Heads],
    target: Target,
    alike: bool,
    *,
    repeats: int = 7,
    tick: Callable[[], None] = lambda: None,
) -> list[float]:
    """Seconds of `probes_of`'s models on this machine, in turns; raises `bpc.timing.alternate.BenchmarkError`."""
    from bpc.bench.comparison import time_models

    graphs: dict[str, Any] = {}
    for index, probe in enumerate(probes_of(sublayers, heads, alike)):
        graphs[str(index)] = probe_graph(graph, sublayers, heads, probe)
        tick()
    return [timing.best for timing in time_models(graphs, repeats=repeats, **timing_options(target)).values()]


# Of choosing, measuring what was chosen, and choosing again: how often, and how near the wanted speed-up is enough.
ROUNDS, CLOSE = 3, 0.02


def measured_speedup(graph: fx.GraphModule, masks: Mapping[str, Tensor], target: Target) -> float:
    """Times as fast as the graph that what the masks leave of it is, both timed in one run as ``target`` says.

    The weights' values do not matter to it. Raises `bpc.timing.alternate.BenchmarkError`.
    """
    from bpc.bench.comparison import time_models

    small = passes.shrink(graph, masks, verify=False).graph_module
    times = time_models({"original": graph, "small": small}, repeats=15, **timing_options(target))
    return times["original"].best / times["small"].best


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
