"""For every sublayer: the order in which its units go, and what the model loses at each step down.

Sublayer after sublayer in graph order, on the original model's own activations: the moments of what its last linear
reads give the order (`bpc.oneshot.surgeon`) and, at a few counts of kept units, its refit; with each of these the
rest of the model is run on some of the batches, and its outputs are compared with the original's. So the loss is what
this one sublayer costs the *outputs*, in the same unit for all. Where the heads of an attention may be narrowed
(`bpc.oneshot.bases`), the losses of all heads with fewer dims of values, and of queries and keys, are measured alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from bpc.oneshot.bases import KeyMoments, narrowed_values, narrowing_keys, value_basis
from bpc.oneshot.batches import Batch, tokens_of
from bpc.oneshot.divergence import divergence
from bpc.oneshot.heads import Heads
from bpc.oneshot.ladder import Ladder, Width
from bpc.oneshot.stream import Runner, Sweep, Timeline
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.surgeon import removal_order
from passes.ir.graph import get_attribute
from passes.rewrite.refit import Moments, RefitLinears, Refitting
from passes.rewrite.turn_heads import Turn, TurnHeads
from passes.structure.weight_uses import weight_uses

Narrow = Literal["no", "alike", "freely"]
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)  # kept shares at which a sublayer's loss is measured
WIDTHS = (0.25, 0.5, 0.75)  # the same of a head's dims


@dataclass(frozen=True)
class Setting:
    """What the sweeps need to know.

    ``ridge``: see `passes.rewrite.refit`; ``probes``: how many batches losses are measured on, at which ``levels``;
    ``narrow``: whether heads may get narrower, and values other than queries and keys.
    """

    ridge: float = 1e-2
    probes: int = 4
    levels: tuple[float, ...] = LEVELS
    multi_label: bool = False
    narrow: Narrow = "no"


def counts_of(sublayer: Sublayer, levels: Sequence[float]) -> list[int]:
    """Numbers of kept units to measure, all below the whole."""
    return sorted({round(level * sublayer.count) for level in levels} - {sublayer.count})


def widths_of(heads: Heads | None) -> list[int]:
    """Numbers of dims of a head to measure, for values and for keys each."""
    features = None if heads is None else heads.value or heads.key
    return [] if features is None else sorted({max(1, round(w * features.dims)) for w in WIDTHS} - {features.dims})


def measurements_of(sublayer: Sublayer, setting: Setting, heads: Heads | None = None) -> int:
    """How many losses are measured of a sublayer."""
    pairs = 0 if heads is None else (heads.value is not None) + (heads.key is not None)
    return len(counts_of(sublayer, setting.levels)) + pairs * len(widths_of(heads))


def measure_ladders(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    setting: Setting,
    *,
    heads: Mapping[str, Heads] | None = None,
    known: dict[str, Ladder] | None = None,
    done: Callable[[Sublayer, Ladder], None] = lambda sublayer, ladder: None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Ladder], dict[str, Moments]]:
    """The ladder of every sublayer, by name, and the moments of those whose weight several layers share.

    ``heads``: of attentions that may be narrowed. ``known``: ladders of an earlier run, not measured again. ``done`` is
    told each new one; ``tick`` every pass of a batch through a part of the graph.
    """
    timeline = Timeline(graph)
    sweep = Sweep(Runner(graph, timeline), batches)
    losses = _Losses(graph, timeline, sweep, batches, setting, tick)
    ladders, shared = dict(known or {}), {}
    keys: dict[str, Width | None] = {}
    gathered = {s.name: _moments(graph, s) for s in sublayers}
    for position, node, sublayer in _stops(graph, timeline, sublayers, heads or {}):
        if sublayer.name in ladders and len(sublayer.nodes) == 1:
            continue
        own = (heads or {}).get(sublayer.name)
        if node not in sublayer.nodes:
            assert own is not None
            keys[sublayer.name] = _keys(losses, own, position)
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
        start = position if len(sublayer.nodes) == 1 else None
        by_count = {}
        for count in counts_of(sublayer, setting.levels):
            kept = Ladder(tuple(order), {}).kept(count).repeat_interleave(sublayer.size)
            by_count[count] = losses.of(refit_of(sublayer, moments, kept, setting.ridge).numbers(graph), start)
        values = (
            _values(losses, sublayer, moments, own, position) if own is not None and own.value is not None else None
        )
        ladders[sublayer.name] = Ladder(tuple(order), by_count, values, keys.pop(sublayer.name, None))
        done(sublayer, ladders[sublayer.name])
    return ladders, shared


def _stops(
    graph: fx.GraphModule, timeline: Timeline, sublayers: Sequence[Sublayer], heads: Mapping[str, Heads]
) -> list[tuple[int, str, Sublayer]]:
    """Where the sweep stops, in order: (position, node) of every last linear, and of the queries and keys of attentions
    that may be narrowed, whichever come first."""
    stops = [(timeline.position[node], node, s) for s in sublayers for node in s.nodes]
    linears = {use.weight: node.name for node, use in weight_uses(graph).items()}
    for sublayer in sublayers:
        own = heads.get(sublayer.name)
        if own is not None and own.query is not None and own.key is not None:
            names = (linears[own.query.weight], linears[own.key.weight])
            stops.append(min((timeline.position[name], name, sublayer) for name in names))
    return sorted(stops, key=lambda stop: stop[:2])


class _Losses:
    """What the model's outputs lose when it reads other numbers, on the first of the batches."""

    def __init__(
        self,
        graph: fx.GraphModule,
        timeline: Timeline,
        sweep: Sweep,
        batches: Sequence[Batch],
        setting: Setting,
        tick: Callable[[], None],
    ) -> None:
        self.graph, self.timeline, self.sweep, self.batches = graph, timeline, sweep, batches
        self.setting, self.tick = setting, tick
        self._probes = range(min(setting.probes, len(batches)))
        self._originals = [sweep.runner.outputs(sweep[index]) for index in self._probes]

    def of(self, instead: Mapping[str, Tensor], start: int | None) -> float:
        """``start``: the position of the sweep, if nothing before it reads them."""
        changed = Runner(self.graph, self.timeline, instead)
        total = 0.0
        for index in self._probes:
            batch = self.batches[index]
            frontier = changed.start(batch) if start is None else self.sweep[index]
            result = changed.outputs(frontier, start or 0)
            total += divergence(self._originals[index], result, batch, multi_label=self.setting.multi_label)
            self.tick()
        return total / len(self._probes)


def _keys(losses: _Losses, heads: Heads, position: int) -> Width | None:
    """Sweep to the linears of queries and keys, and narrow them there; None where not both are made of what is there
    already."""
    assert heads.query is not None
    assert heads.key is not None
    graph, moments = losses.graph, KeyMoments(heads)
    inputs = {use.weight: use.input.name for use in weight_uses(graph).values()}
    for batch, frontier in zip(losses.batches, losses.sweep.advance(position, losses.tick), strict=True):
        made = []
        for features in (heads.query, heads.key):
            read = frontier.get(inputs[features.weight])
            if read is None:
                return None
            weight = get_attribute(graph, features.weight).detach()
            bias = None if features.bias is None else get_attribute(graph, features.bias).detach()
            weight = weight if features.out_dim == 0 else weight.T
            made.append(torch.nn.functional.linear(tokens_of(batch, read), weight, bias))
        moments.add(*made)
    basis, by_dims = moments.basis(), {}
    for dims in widths_of(heads):
        turn = Turn(heads.query, heads.of_queries(narrowing_keys(basis, dims)))
        by_dims[dims] = losses.of(TurnHeads([turn]).numbers(graph), position)
    return Width(basis, by_dims)


def _values(losses: _Losses, sublayer: Sublayer, moments: Moments, heads: Heads, position: int) -> Width:
    weight, bias = weight_of(losses.graph, sublayer), sublayer.bias is not None
    basis = value_basis(weight, moments, heads, bias=bias)
    by_dims = {}
    for dims in widths_of(heads):
        fitted, shift = narrowed_values(weight, moments, heads, basis, dims, bias=bias, ridge=losses.setting.ridge)
        by_dims[dims] = losses.of(stored(losses.graph, sublayer, fitted, shift), position)
    return Width(basis, by_dims)


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


def stored(graph: fx.GraphModule, sublayer: Sublayer, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """{name: numbers} of a sublayer's weight (out, features) and bias, as the graph stores them."""
    weight = weight if sublayer.out_dim == 0 else weight.T
    found = {sublayer.weight: weight.contiguous().to(get_attribute(graph, sublayer.weight))}
    if sublayer.bias is not None and bias is not None:
        found[sublayer.bias] = bias.to(get_attribute(graph, sublayer.bias))
    return found


def bias_of(graph: fx.GraphModule, sublayer: Sublayer) -> Any:
    """Its bias, or None."""
    return None if sublayer.bias is None else get_attribute(graph, sublayer.bias).detach()


def input_of(graph: fx.GraphModule, node: str) -> str:
    """The name of the node that a linear reads."""
    return next(use.input.name for found, use in weight_uses(graph).items() if found.name == node)
