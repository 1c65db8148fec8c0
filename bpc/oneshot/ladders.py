"""For every sublayer: the order in which its units go, and what the model loses at each step down.

Sublayer after sublayer in graph order, on the original model's own activations: the moments of what its last linear
reads give the order (`bpc.oneshot.surgeon`) and, at a few counts of kept units, its refit; with each of these the
rest of the model is run on some of the batches, and its outputs are compared with the original's. So the loss is what
this one sublayer costs the *outputs*, in the same unit for all. Where the heads of an attention may be narrowed
(`bpc.oneshot.bases`), the losses of all heads with fewer dims of values, and of queries and keys, are measured alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from bpc.oneshot.bases import KeyMoments, narrowed_values, narrowing_keys, value_basis
from bpc.oneshot.batches import Batch, tokens_of
from bpc.oneshot.divergence import divergence, outputs
from bpc.oneshot.heads import Heads
from bpc.oneshot.ladder import Ladder, Width
from bpc.oneshot.stream import Original, Store, Sweep
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.surgeon import removal_order
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
    original: Original,
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
    sweep = original.sweep(batches)
    losses = _Losses(original, sweep, batches, setting, tick)
    ladders, shared = dict(known or {}), {}
    keys: dict[str, Width | None] = {}
    gathered: dict[str, Moments] = {}
    for position, node, sublayer in _stops(original, sublayers, heads or {}):
        if sublayer.name in ladders and len(sublayer.nodes) == 1:
            continue
        own = (heads or {}).get(sublayer.name)
        if node not in sublayer.nodes:
            assert own is not None
            keys[sublayer.name] = _keys(losses, own, position)
            continue
        weight, bias = weight_of(original.weights, sublayer), bias_of(original.weights, sublayer)
        read = input_of(original.graph, node)
        if sublayer.name not in gathered:
            gathered[sublayer.name] = Moments(weight.shape[1], weight.shape[0])
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
        counts, measured = counts_of(sublayer, setting.levels), Ladder(tuple(order), {})
        refits = (
            refit_of(sublayer, moments, measured.kept(count).repeat_interleave(sublayer.size), setting.ridge)
            for count in counts
        )
        by_count = dict(zip(counts, losses.of((r.numbers(original.weights) for r in refits), start), strict=True))
        values = (
            _values(losses, sublayer, moments, own, position) if own is not None and own.value is not None else None
        )
        ladders[sublayer.name] = Ladder(tuple(order), by_count, values, keys.pop(sublayer.name, None))
        done(sublayer, ladders[sublayer.name])
    return ladders, shared


def _stops(
    original: Original, sublayers: Sequence[Sublayer], heads: Mapping[str, Heads]
) -> list[tuple[int, str, Sublayer]]:
    """Where the sweep stops, in order: (position, node) of every last linear, and of the queries and keys of attentions
    that may be narrowed, whichever come first."""
    timeline = original.timeline
    stops = [(timeline.position[node], node, s) for s in sublayers for node in s.nodes]
    linears = {use.weight: node.name for node, use in weight_uses(original.graph).items()}
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
        original: Original,
        sweep: Sweep,
        batches: Sequence[Batch],
        setting: Setting,
        tick: Callable[[], None],
    ) -> None:
        self.original, self.sweep, self.batches = original, sweep, batches
        self.setting, self.tick = setting, tick
        self._probes = range(min(setting.probes, len(batches)))
        self._originals = Store(original.spill)
        for index in self._probes:
            self._originals[index] = dict(outputs(sweep.runner.outputs(sweep[index])))

    def of(self, alternatives: Iterable[Mapping[str, Tensor]], start: int | None) -> list[float]:
        """The loss with each of ``alternatives``, {name: what is read in its place}.

        ``start``: the position of the sweep, if nothing before it reads them. Where the model is cut into stretches,
        all alternatives pass through one before the next, so that its weights come from files once.
        """
        (begin, end), *later = self.original.timeline.stretches(start or 0)
        read_later = self.original.timeline.reads_after(end) if later else set()
        waiting, changed, losses = Store(self.original.spill), [], []
        for number, numbers in enumerate(alternatives):
            runner = self.original.runner(numbers)
            losses.append(0.0)
            for index in self._probes:
                frontier = runner.start(self.batches[index]) if start is None else self.sweep[index]
                if later:
                    waiting[number * len(self._probes) + index] = runner.run(frontier, begin, end)
                else:
                    losses[number] += self._divergence(index, runner.outputs(frontier, begin))
            changed.append({name: tensor for name, tensor in numbers.items() if name in read_later})
        for begin, end in later:
            for number, numbers in enumerate(changed):
                runner = self.original.runner(numbers)
                for index in self._probes:
                    key = number * len(self._probes) + index
                    if end < self.original.timeline.end:
                        waiting[key] = runner.run(waiting[key], begin, end)
                    else:
                        losses[number] += self._divergence(index, runner.outputs(waiting[key], begin))
        return [loss / len(self._probes) for loss in losses]

    def _divergence(self, index: int, result: Any) -> float:
        self.tick()
        batch, multi_label = self.batches[index], self.setting.multi_label
        return divergence(self._originals[index], result, batch, multi_label=multi_label)


def _keys(losses: _Losses, heads: Heads, position: int) -> Width | None:
    """Sweep to the linears of queries and keys, and narrow them there; None where not both are made of what is there
    already."""
    assert heads.query is not None
    assert heads.key is not None
    weights, moments = losses.original.weights, KeyMoments(heads)
    inputs = {use.weight: use.input.name for use in weight_uses(losses.original.graph).values()}
    for batch, frontier in zip(losses.batches, losses.sweep.advance(position, losses.tick), strict=True):
        made = []
        for features in (heads.query, heads.key):
            read = frontier.get(inputs[features.weight])
            if read is None:
                return None
            weight = weights[features.weight] if features.out_dim == 0 else weights[features.weight].T
            bias = None if features.bias is None else weights[features.bias]
            made.append(torch.nn.functional.linear(tokens_of(batch, read), weight, bias))
        moments.add(*made)
    basis, dims = moments.basis(), widths_of(heads)
    turns = (Turn(heads.query, heads.of_queries(narrowing_keys(basis, d))) for d in dims)
    found = losses.of((TurnHeads([turn]).numbers(weights) for turn in turns), position)
    return Width(basis, dict(zip(dims, found, strict=True)))


def _values(losses: _Losses, sublayer: Sublayer, moments: Moments, heads: Heads, position: int) -> Width:
    weights = losses.original.weights
    weight, bias = weight_of(weights, sublayer), sublayer.bias is not None
    basis, dims = value_basis(weight, moments, heads, bias=bias), widths_of(heads)
    fits = (narrowed_values(weight, moments, heads, basis, d, bias=bias, ridge=losses.setting.ridge) for d in dims)
    found = losses.of((stored(weights, sublayer, *fit) for fit in fits), position)
    return Width(basis, dict(zip(dims, found, strict=True)))


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


def weight_of(weights: Mapping[str, Tensor], sublayer: Sublayer) -> Tensor:
    """The sublayer's weight as (out, features)."""
    weight = weights[sublayer.weight]
    return weight if sublayer.out_dim == 0 else weight.T


def stored(weights: Mapping[str, Tensor], sublayer: Sublayer, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """{name: numbers} of a sublayer's weight (out, features) and bias, as the model stores them."""
    weight = weight if sublayer.out_dim == 0 else weight.T
    found = {sublayer.weight: weight.contiguous().to(weights[sublayer.weight])}
    if sublayer.bias is not None and bias is not None:
        found[sublayer.bias] = bias.to(weights[sublayer.bias])
    return found


def bias_of(weights: Mapping[str, Tensor], sublayer: Sublayer) -> Tensor | None:
    """Its bias, or None."""
    return None if sublayer.bias is None else weights[sublayer.bias]


def input_of(graph: fx.GraphModule, node: str) -> str:
    """The name of the node that a linear reads."""
    return next(use.input.name for found, use in weight_uses(graph).items() if found.name == node)
