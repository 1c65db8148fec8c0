"""Other ways to choose the units that go: scores of units, and how many each layer keeps of them under a budget.

All choose among the units of `bpc.prune_once` (heads, FFN dims in multiples of 8), and may keep as many parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from setting import Calibrated, layers_of
from torch import Tensor, nn

from bpc.costs import Costs
from bpc.oneshot.batches import tokens_of
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import input_of, weight_of
from bpc.oneshot.stream import Runner, Sweep, Timeline
from bpc.oneshot.sublayers import Sublayer
from passes.ir.graph import GraphTensors

Scores = dict[str, Tensor]  # by sublayer: one number per unit, more is needed more
Kept = dict[str, int]
_MULTIPLE = 8


def random(setup: Calibrated, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return {s.name: torch.rand(s.count, generator=generator) for s in setup.sublayers}


def magnitude(setup: Calibrated) -> Scores:
    """The norm of the columns through which a unit leaves its block."""
    return {s.name: _columns(setup, s).square().sum((0, 2)).sqrt() for s in setup.sublayers}


def wanda(setup: Calibrated) -> Scores:
    """Σ |W_ij|·‖x_j‖ over a unit's columns j (Sun et al. 2023, summed over structures)."""
    timeline = Timeline(setup.graph)
    sweep = Sweep(Runner(setup.graph, timeline), setup.batches)
    scores = {}
    for s in setup.sublayers:
        read, squares = input_of(setup.graph, s.nodes[0]), torch.zeros(s.features, dtype=torch.float64)
        for batch, frontier in zip(setup.batches, sweep.advance(timeline.position[s.nodes[0]]), strict=True):
            squares += tokens_of(batch, frontier[read]).square().sum(0, dtype=torch.float64)
        norms = squares.sqrt().view(1, s.count, s.size)
        scores[s.name] = (_columns(setup, s).abs() * norms).sum((0, 2))
    return scores


def torch_pruning(setup: Calibrated, name: str) -> Scores:
    """An importance of Torch-Pruning's ("GroupMagnitudeImportance", "LAMPImportance"), its mean over each head.

    Needs ``pip install torch-pruning``. Its dependency graph does not know heads; the mean is what its pruner takes.
    """
    import torch_pruning as tp

    model: Any = setup.model
    batch = {k: v for k, v in setup.batches[0].items() if isinstance(v, Tensor)}
    dependencies = tp.DependencyGraph().build_dependency(model, example_inputs=batch)
    importance = getattr(tp.importance, name)()
    scores = {}
    for s in setup.sublayers:
        modules = [model.get_submodule(part.removesuffix(".weight")) for part in s.parts if part != s.weight]
        first = next(m for m in modules if m.out_features == s.features)
        group = dependencies.get_pruning_group(first, tp.prune_linear_out_channels, idxs=list(range(s.features)))
        scores[s.name] = importance(group).detach().view(s.count, s.size).mean(1)
    return scores


def ladders_of(scores: Scores) -> dict[str, Ladder]:
    """The order that scores give."""
    return {name: Ladder(tuple(values.argsort().tolist()), {}) for name, values in scores.items()}


def uniform(setup: Calibrated, scores: Scores, costs: Costs, budget: float) -> Kept:
    """The same share of every layer: of all ways to fill the budget, the one with most equal shares of heads and dims.

    Few heads per layer make the difference: a third of a layer's attention may be the least that can go.
    """
    most = max(s.count for s in setup.sublayers if s.unit == "head")
    found = []
    for heads in range(most + 1):

        def choose(share: float, heads: float = heads / most) -> Kept:
            return {s.name: _rounded(s, (heads if s.unit == "head" else share) * s.count) for s in setup.sublayers}

        if costs.total(choose(0.0)) > budget:
            continue
        kept = _largest(choose, costs, budget)
        dims = [kept[s.name] / s.count for s in setup.sublayers if s.unit == "dim"]
        found.append((abs(heads / most - sum(dims) / len(dims)), kept))
    return min(found, key=lambda pair: pair[0])[1]


def overall(setup: Calibrated, scores: Scores, costs: Costs, budget: float, *, normalise: bool = True) -> Kept:
    """The same share of all heads and of all dims of the model, those with the highest scores wherever they lie.

    ``normalise``: scores are divided by their layer's mean, without which layers can hardly be compared.
    """
    values = {n: v / v.mean() if normalise else v for n, v in scores.items()}
    ranked = {
        unit: torch.cat([values[s.name] for s in setup.sublayers if s.unit == unit]).sort(descending=True).values
        for unit in {s.unit for s in setup.sublayers}
    }

    def choose(share: float) -> Kept:
        kept = {}
        for s in setup.sublayers:
            count = round(share * len(ranked[s.unit]))
            least = ranked[s.unit][count - 1] if count else torch.inf
            kept[s.name] = _rounded(s, float((values[s.name] >= least).sum()))
        return kept

    return _largest(choose, costs, budget)


def without_layers(setup: Calibrated, order: Sequence[int], costs: Costs, budget: float) -> tuple[Kept, list[int]]:
    """Whole layers gone in that order, no more than the budget asks for; also says which."""
    layers = layers_of(setup.sublayers)
    for number in range(len(layers) + 1):
        gone = {s.name for index in order[:number] for s in layers[index]}
        kept = {s.name: 0 if s.name in gone else s.count for s in setup.sublayers}
        if costs.total(kept) <= budget * (1 + 1e-9):
            return kept, sorted(order[:number])
    raise ValueError("the budget is less than what no layers cost")


def drop(model: nn.Module, gone: Sequence[int]) -> nn.Module:
    """A model without some of its layers, as one takes them out by hand."""
    import copy

    small: Any = copy.deepcopy(model)
    (name,) = [
        n for n, m in small.named_modules() if isinstance(m, nn.ModuleList) and len(m) == small.config.num_hidden_layers
    ]
    layers = small.get_submodule(name)
    small.set_submodule(name, nn.ModuleList(layer for index, layer in enumerate(layers) if index not in set(gone)))
    small.config.num_hidden_layers -= len(gone)
    return small


@torch.no_grad()
def by_influence(setup: Calibrated) -> list[int]:
    """Layers in the order of how little they turn the hidden states (block influence; Men et al. 2024)."""
    model: Any = setup.model
    total: Tensor | None = None
    for batch in setup.batches:
        states = model(**batch, output_hidden_states=True).hidden_states
        turned = [1 - torch.cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(states)]
        total = torch.stack(turned) if total is None else total + torch.stack(turned)
    assert total is not None
    return total.argsort().tolist()


def _columns(setup: Calibrated, s: Sublayer) -> Tensor:
    """The weight as (out, units, size)."""
    weight = weight_of(GraphTensors(setup.graph), s).double()
    return weight.reshape(len(weight), s.count, s.size)


def _rounded(s: Sublayer, count: float) -> int:
    step = _MULTIPLE if s.size == 1 else 1
    return min(s.count, round(count / step) * step)


def _largest(choose: Callable[[float], Kept], costs: Costs, budget: float, steps: int = 2000) -> Kept:
    """What the largest share chooses that the budget allows."""
    fitting = (choose(step / steps) for step in range(steps, -1, -1))
    return next(kept for kept in fitting if costs.total(kept) <= budget * (1 + 1e-9))
