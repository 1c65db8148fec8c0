"""How long a run will take, and how many batches its measurements are made on: both from its arithmetic."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from bpc.oneshot.batches import Batch
from bpc.oneshot.heads import Heads
from bpc.oneshot.ladders import Setting, measurements_of
from bpc.oneshot.stream import Original, Timeline
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import Target
from passes.structure.weight_uses import weight_uses

_PROBE_FLOPS = 4e12  # spent on losses at effort 1, so that a choice does not depend on the machine's speed …
_LEAST_TOKENS = 512  # … but never on fewer tokens than these
_COMPARED_FLOPS = 1e12  # spent on comparing the result with the original, and never on fewer than …
_COMPARED_TOKENS = 2048


def probe_batches(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    effort: float,
    heads: Mapping[str, Heads] | None = None,
) -> int:
    """How many batches the losses of `bpc.oneshot.ladders` are measured on."""
    flops = max(1.0, _runs(graph, sublayers, Setting(), heads or {}) * _flops_per_token(graph))
    return _batches_of(batches, max(_LEAST_TOKENS, effort * _PROBE_FLOPS / flops))


def compared_batches(graph: fx.GraphModule, batches: Sequence[Batch]) -> int:
    """How many batches the result is compared with the original on."""
    return _batches_of(batches, max(_COMPARED_TOKENS, _COMPARED_FLOPS / max(1, 2 * _flops_per_token(graph))))


def _batches_of(batches: Sequence[Batch], tokens: float) -> int:
    count, seen = 0, 0
    while count < len(batches) and seen < tokens:
        seen += _tokens(batches[count])
        count += 1
    return max(1, count)


def describe_estimate(
    original: Original,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    setting: Setting,
    target: Target,
    heads: Mapping[str, Heads],
) -> str:
    """One line on what is about to happen; runs the first batch to measure this machine."""
    runner = original.runner()
    started = time.perf_counter()
    runner.outputs(runner.start(batches[0]))
    per_token = (time.perf_counter() - started) / max(1, _tokens(batches[0]))
    tokens = sum(_tokens(batch) for batch in batches)
    probed = sum(_tokens(batch) for batch in batches[: setting.probes])
    products = _seconds_per_flop() * sum(
        6 * tokens * s.features**2 + (len(setting.levels) * s.features**3) for s in sublayers
    )
    seconds = per_token * (4 * tokens + _runs(original.graph, sublayers, setting, heads) * probed) + products
    if target.speedup is not None:
        seconds += 10 * per_token * target.shape[0] * target.shape[1] * 20 + 30
    minutes = "less than a minute" if seconds < 45 else f"about {max(1, round(seconds / 60))} min"
    whole = sum(s.count for s in sublayers if s.unit == "head")
    dims = sum(s.count for s in sublayers if s.unit == "dim")
    return (
        f"{whole:,} heads and {dims:,} dims in {len(sublayers)} layers, {tokens:,} tokens of calibration data "
        f"(losses measured on {probed:,}): {minutes} on this machine"
    )


def _runs(graph: fx.GraphModule, sublayers: Sequence[Sublayer], setting: Setting, heads: Mapping[str, Heads]) -> float:
    """Whole forward passes that measuring losses amounts to."""
    timeline = Timeline(graph)
    return sum(
        measurements_of(s, setting, heads.get(s.name)) * (1 - timeline.position[s.nodes[0]] / max(1, timeline.end))
        for s in sublayers
    )


def _flops_per_token(graph: fx.GraphModule) -> int:
    weights = {use.weight for use in weight_uses(graph).values()}
    return 2 * sum(p.numel() for name, p in graph.named_parameters() if name in weights)


def _tokens(batch: Batch) -> int:
    tensors = [v for v in batch.values() if isinstance(v, Tensor) and v.dim()]
    ids = [v for v in tensors if v.dim() == 2 and not v.is_floating_point()]
    return ids[0].numel() if ids else max((v.shape[0] for v in tensors), default=1) * 64


def _seconds_per_flop() -> float:
    a = torch.randn(512, 512)
    a @ a
    started = time.perf_counter()
    for _ in range(4):
        a @ a
    return (time.perf_counter() - started) / (4 * 2 * 512**3)
