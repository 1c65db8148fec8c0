"""Remove the units that were not chosen and refit the others, sublayer after sublayer, each on what earlier ones left.

Two streams of activations run side by side: the original's, and the pruned model's so far. The refit of a sublayer's
last linear wants, from the pruned stream's inputs, the output that brings the *residual stream* back to the original's:

    y = W x_original + b + (r_original - r_pruned)         r: what the output is added to

so that each sublayer mends what the ones before it could not.
"""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, fx

from bpc.oneshot.batches import Batch, tokens_of
from bpc.oneshot.heads import Heads
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import Setting, bias_of, input_of, refit_of, weight_of
from bpc.oneshot.masks import kept_features, narrow_keys
from bpc.oneshot.search import Selection
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import Sublayer
from passes.ir.sizes import tensor_of
from passes.ops.rule import Kind
from passes.ops.table import kind_of
from passes.rewrite.refit import Moments

Numbers = Mapping[str, Tensor]  # {weight or bias: what it becomes}


def repair(
    original: Original,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    selection: Selection,
    ladders: Mapping[str, Ladder],
    setting: Setting,
    *,
    heads: Mapping[str, Heads] | None = None,
    shared: Mapping[str, Moments] | None = None,
    known: Mapping[str, Numbers] | None = None,
    done: Callable[[Sublayer, Numbers], Numbers] = lambda sublayer, numbers: numbers,
    tick: Callable[[], None] = lambda: None,
) -> Numbers:
    """The weights and biases that change, refitted, and zero in the columns of the units that went.

    ``selection``: of the units the last ones of the ladder's order stay; heads that get narrower (``heads``) are in
    their bases already. ``shared``: moments, on the original's activations, of weights that several layers share: these
    are refitted once, before all others.
    ``known``: what an earlier run made of the first sublayers, by name; ``done`` is told what each new one becomes, and
    gives back what it is read from henceforth (a file, where these weights may not stay in memory).
    """
    graph, position = original.graph, original.timeline.position
    heads = heads or {}
    features = {s.name: kept_features(s, ladders[s.name], selection, heads.get(s.name)) for s in sublayers}
    changed: ChainMap[str, Tensor] = ChainMap(_narrow_keys(original, selection, heads))
    pruned = original.with_numbers(changed)

    def add(numbers: Numbers) -> None:
        changed.maps.insert(0, numbers)  # type: ignore[arg-type]  # nothing is written to it

    def refitted(sublayer: Sublayer, moments: Moments) -> Numbers:
        return refit_of(sublayer, moments, features[sublayer.name], setting.ridge).numbers(pruned)

    for sublayer in sublayers:
        if len(sublayer.nodes) > 1 and not features[sublayer.name].all():
            assert shared is not None
            add(refitted(sublayer, shared[sublayer.name]))
    losing = {s.name for s in sublayers if not features[s.name].all() or s.name in selection.widths}
    left = [s for s in _touched(sublayers, losing) if len(s.nodes) == 1]
    while left and known is not None and left[0].name in known:  # later ones were fitted to what came before them
        add(known[left.pop(0).name])
    # The second sweep reads weights as they are when it comes by.
    before, after = original.sweep(batches), original.sweep(batches, changed)
    for sublayer in left:
        weight, bias = weight_of(original.weights, sublayer), bias_of(original.weights, sublayer)
        node = sublayer.nodes[0]
        read, residual = input_of(graph, node), residual_of(graph, node)
        moments = Moments(weight.shape[1], weight.shape[0])
        reached = (sweep.advance(position[node], tick) for sweep in (before, after))
        for batch, old, new in zip(batches, *reached, strict=True):
            wanted = torch.nn.functional.linear(tokens_of(batch, old[read]), weight, bias)
            if residual in old and residual in new:
                wanted = wanted + tokens_of(batch, old[residual]) - tokens_of(batch, new[residual])
            moments.add(tokens_of(batch, new[read]), wanted)
        add(done(sublayer, refitted(sublayer, moments)))
    return changed


def _touched(sublayers: Sequence[Sublayer], changed: Collection[str]) -> list[Sublayer]:
    """Those that lose units themselves or read what an earlier one has changed."""
    if any(len(s.nodes) > 1 for s in sublayers):
        return list(sublayers)
    return list(itertools.dropwhile(lambda s: s.name not in changed, sublayers))


def _narrow_keys(original: Original, selection: Selection, heads: Mapping[str, Heads]) -> dict[str, Tensor]:
    """Queries and keys without the dims that go."""
    masks: dict[str, Tensor] = {}
    for name, width in selection.widths.items():
        narrow_keys(original.graph, heads[name], width.keys, masks)
    return {name: original.weights[name] * mask for name, mask in masks.items()}


def residual_of(graph: fx.GraphModule, node: str) -> str | None:
    """The name of the node that a linear's output is added to, before anything else is done to it; None if none is."""
    current = next(n for n in graph.graph.nodes if n.name == node)
    rows = _rows(current)
    while len(current.users) == 1:
        (user,) = current.users
        if kind_of(user) is Kind.SUM:
            others = [n for n in user.all_input_nodes if n is not current]
            if len(others) == 1 and others[0].op != "get_attr" and _rows(others[0]) == rows == _rows(user):
                return others[0].name
            if not (len(others) == 1 and others[0].op == "get_attr"):  # a bias added afterwards is passed over
                return None
        elif kind_of(user) is not Kind.VIEW or _rows(user) != rows:
            return None
        current = user
    return None


def _rows(node: fx.Node) -> tuple[str, str] | None:
    """(features, entries) of a node's value: equal where a view has only laid the rows out anew.

    As text: comparing sizes that depend on the input would fix them for the whole graph.
    """
    value = tensor_of(node)
    return None if not isinstance(value, Tensor) or not value.dim() else (str(value.shape[-1]), str(value.numel()))
