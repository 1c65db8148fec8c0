"""Remove the units that were not chosen and refit the others, sublayer after sublayer, each on what earlier ones left.

Two streams of activations run side by side: the original's, and the pruned model's so far. The refit of a sublayer's
last linear wants, from the pruned stream's inputs, the output that brings the *residual stream* back to the original's:

    y = W x_original + b + (r_original - r_pruned)         r: what the output is added to

so that each sublayer mends what the ones before it could not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, fx

from bpc.oneshot.batches import Batch, tokens_of
from bpc.oneshot.heads import Heads
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import Setting, bias_of, input_of, refit_of, weight_of
from bpc.oneshot.masks import kept_features, narrow_keys
from bpc.oneshot.search import Selection
from bpc.oneshot.stream import Runner, Sweep, Timeline
from bpc.oneshot.sublayers import Sublayer
from passes.ir.graph import copy_graph, get_attribute, set_numbers
from passes.ir.sizes import tensor_of
from passes.ops.rule import Kind
from passes.ops.table import kind_of
from passes.rewrite.refit import Moments

Numbers = dict[str, Tensor]  # {weight or bias: what it becomes}


def repair(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    selection: Selection,
    ladders: Mapping[str, Ladder],
    setting: Setting,
    *,
    heads: Mapping[str, Heads] | None = None,
    shared: Mapping[str, Moments] | None = None,
    known: Mapping[str, Numbers] | None = None,
    done: Callable[[Sublayer, Numbers], None] = lambda sublayer, numbers: None,
    tick: Callable[[], None] = lambda: None,
) -> fx.GraphModule:
    """The graph with refitted weights, zero in the columns of the units that went.

    ``selection``: of the units the last ones of the ladder's order stay; heads that get narrower (``heads``) are in
    their bases already. ``shared``: moments, on the original's activations, of weights that several layers share: these
    are refitted once, before all others.
    ``known``: what an earlier run made of the first sublayers, by name; ``done`` is told what each new one becomes.
    """
    timeline = Timeline(graph)
    pruned = copy_graph(graph)
    heads = heads or {}
    features = {s.name: kept_features(s, ladders[s.name], selection, heads.get(s.name)) for s in sublayers}
    _set(pruned, _narrow_keys(graph, selection, heads))

    def refitted(sublayer: Sublayer, moments: Moments) -> Numbers:
        return refit_of(sublayer, moments, features[sublayer.name], setting.ridge).numbers(pruned)

    for sublayer in sublayers:
        if len(sublayer.nodes) > 1 and not features[sublayer.name].all():
            assert shared is not None
            _set(pruned, refitted(sublayer, shared[sublayer.name]))
    changed = {s.name for s in sublayers if not features[s.name].all() or s.name in selection.widths}
    left = [s for s in _touched(sublayers, changed) if len(s.nodes) == 1]
    while left and known is not None and left[0].name in known:  # later ones were fitted to what came before them
        _set(pruned, known[left.pop(0).name])
    # Runners read the weights of `pruned` as they are when they come by.
    before, after = Sweep(Runner(graph, timeline), batches), Sweep(Runner(pruned, timeline), batches)
    for sublayer in left:
        weight, bias = weight_of(graph, sublayer), bias_of(graph, sublayer)
        node = sublayer.nodes[0]
        read, residual = input_of(graph, node), residual_of(graph, node)
        moments = Moments(weight.shape[1], weight.shape[0])
        position = timeline.position[node]
        for batch, old, new in zip(batches, before.advance(position, tick), after.advance(position, tick), strict=True):
            wanted = torch.nn.functional.linear(tokens_of(batch, old[read]), weight, bias)
            if residual in old and residual in new:
                wanted = wanted + tokens_of(batch, old[residual]) - tokens_of(batch, new[residual])
            moments.add(tokens_of(batch, new[read]), wanted)
        numbers = refitted(sublayer, moments)
        _set(pruned, numbers)
        done(sublayer, numbers)
    return pruned


def _touched(sublayers: Sequence[Sublayer], changed: Collection[str]) -> list[Sublayer]:
    """Those that lose units themselves or read what an earlier one has changed."""
    if any(len(s.nodes) > 1 for s in sublayers):
        return list(sublayers)
    return list(itertools.dropwhile(lambda s: s.name not in changed, sublayers))


def _narrow_keys(graph: fx.GraphModule, selection: Selection, heads: Mapping[str, Heads]) -> Numbers:
    """Queries and keys without the dims that go."""
    masks: dict[str, Tensor] = {}
    for name, width in selection.widths.items():
        narrow_keys(graph, heads[name], width.keys, masks)
    return {name: get_attribute(graph, name).detach() * mask for name, mask in masks.items()}


def _set(graph: fx.GraphModule, numbers: Numbers) -> None:
    for name, value in numbers.items():
        set_numbers(graph, name, value)


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
