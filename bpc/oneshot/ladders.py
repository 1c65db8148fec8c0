"""For every sublayer: the order in which its units go, and what the model loses at each step down.

Sublayer after sublayer in graph order, on the original model's own activations: the moments of what its last linear
reads give the order (`bpc.oneshot.surgeon`) and, at a few counts of kept units, its refit; with each of these the
rest of the model is run on some of the batches, and its outputs are compared with the original's. So the loss is what
this one sublayer costs the *outputs*, in the same unit for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from bpc.oneshot.batches import Batch, tokens_of
from bpc.oneshot.divergence import divergence
from bpc.oneshot.stream import Runner, Sweep, Timeline
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.surgeon import removal_order
from passes.ir.graph import get_attribute
from passes.rewrite.refit import Moments, RefitLinears, Refitting
from passes.structure.weight_uses import weight_uses

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)  # kept shares at which a sublayer's loss is measured


@dataclass(frozen=True)
class Ladder:
    """``order``: units, least needed first. ``losses``: {kept units: divergence of the outputs}."""

    order: tuple[int, ...]
    losses: dict[int, float]

    def kept(self, count: int) -> Tensor:
        """bool (units): the ``count`` units that go last."""
        mask = torch.zeros(len(self.order), dtype=torch.bool)
        mask[list(self.order[len(self.order) - count :])] = True
        return mask

    def loss(self, counts: Sequence[int]) -> np.ndarray:
        """Loss at each of ``counts``, linear between what was measured, and never less with fewer units."""
        known = sorted({**self.losses, len(self.order): 0.0}.items())
        values = np.maximum.accumulate([loss for _, loss in reversed(known)])[::-1]
        return np.interp(counts, [count for count, _ in known], values)


@dataclass(frozen=True)
class Setting:
    """What the sweeps need to know.

    ``ridge``: see `passes.rewrite.refit`; ``probes``: how many batches losses are measured on, at which ``levels``.
    """

    ridge: float = 1e-2
    probes: int = 4
    levels: tuple[float, ...] = LEVELS
    multi_label: bool = False


def counts_of(sublayer: Sublayer, levels: Sequence[float]) -> list[int]:
    """Numbers of kept units to measure, all below the whole."""
    return sorted({round(level * sublayer.count) for level in levels} - {sublayer.count})


def measure_ladders(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    setting: Setting,
    *,
    known: dict[str, Ladder] | None = None,
    done: Callable[[Sublayer, Ladder], None] = lambda sublayer, ladder: None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Ladder], dict[str, Moments]]:
    """The ladder of every sublayer, by name, and the moments of those whose weight several layers share.

    ``known``: ladders of an earlier run, not measured again. ``done`` is told each new one; ``tick`` every pass of a
    batch through a part of the graph.
    """
    timeline = Timeline(graph)
    runner = Runner(graph, timeline)
    sweep = Sweep(runner, batches)
    probes = range(min(setting.probes, len(batches)))
    originals = [runner.outputs(sweep[index]) for index in probes]
    ladders, shared = dict(known or {}), {}
    gathered = {s.name: _moments(graph, s) for s in sublayers}
    stops = sorted((timeline.position[node], node, s) for s in sublayers for node in s.nodes)
    for position, node, sublayer in stops:
        if sublayer.name in ladders and len(sublayer.nodes) == 1:
            continue
        weight, bias = weight_of(graph, sublayer), bias_of(graph, sublayer)
        read = input_of(graph, node)
        for batch, frontier in zip(batches, sweep.advance(position, tick), strict=True):
            x = tokens_of(batch, frontier[read])
            gathered[sublayer.name].add(x, torch.nn.functional.linear(x, weight, bias))
        if node != sublayer.nodes[-1]:
            continue
        moments = gathered.pop(sublayer.name)
        if len(sublayer.nodes) > 1:
            shared[sublayer.name] = moments
        if sublayer.name in ladders:
            continue
        order = _order(weight, moments, sublayer, setting.ridge)
        losses = {}
        for count in counts_of(sublayer, setting.levels):
            kept = Ladder(tuple(order), {}).kept(count).repeat_interleave(sublayer.size)
            refit = refit_of(sublayer, moments, kept, setting.ridge)
            changed = Runner(graph, timeline, refit.numbers(graph))
            total = 0.0
            for index in probes:
                alone = len(sublayer.nodes) == 1
                frontier = sweep[index] if alone else changed.start(batches[index])
                result = changed.outputs(frontier, position if alone else 0)
                total += divergence(originals[index], result, batches[index], multi_label=setting.multi_label)
                tick()
            losses[count] = total / len(probes)
        ladders[sublayer.name] = Ladder(tuple(order), losses)
        done(sublayer, ladders[sublayer.name])
    return ladders, shared


def _moments(graph: fx.GraphModule, sublayer: Sublayer) -> Moments:
    weight = weight_of(graph, sublayer)
    return Moments(weight.shape[1], weight.shape[0])


def _order(weight: Tensor, moments: Moments, sublayer: Sublayer, ridge: float) -> list[int]:
    gram = moments.centred()[0] if sublayer.bias is not None else moments.gram
    penalty = ridge * float(moments.gram.diagonal().mean()) + torch.finfo(torch.float64).tiny
    system = gram + penalty * torch.eye(len(gram), dtype=torch.float64)
    order: list[int] = removal_order(weight.double(), system, sublayer.size).tolist()
    return order


def refit_of(sublayer: Sublayer, moments: Moments, features: Tensor, ridge: float) -> RefitLinears:
    """The pass that refits a sublayer to the ``features`` (bool) that are kept."""
    refitting = Refitting(moments, features, ridge, sublayer.bias, sublayer.out_dim)
    return RefitLinears({sublayer.weight: refitting})


def weight_of(graph: fx.GraphModule, sublayer: Sublayer) -> Tensor:
    """The sublayer's weight as (out, features)."""
    weight: Tensor = get_attribute(graph, sublayer.weight).detach()
    return weight if sublayer.out_dim == 0 else weight.T


def bias_of(graph: fx.GraphModule, sublayer: Sublayer) -> Any:
    """Its bias, or None."""
    return None if sublayer.bias is None else get_attribute(graph, sublayer.bias).detach()


def input_of(graph: fx.GraphModule, node: str) -> str:
    """The name of the node that a linear reads."""
    return next(use.input.name for found, use in weight_uses(graph).items() if found.name == node)
