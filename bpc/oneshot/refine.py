"""Losses of layers do not quite add up: try other weightings of them, and keep what the whole model prefers.

A candidate multiplies every layer's losses by a factor, searches under the same budget, and is repaired on one part of
the data and judged by the divergence of the outputs on another. Candidates are drawn around the best so far, nearer
and nearer to it. (Frantar & Alistarh 2022 search so, without repair.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import fx

from bpc.oneshot.batches import Batch
from bpc.oneshot.divergence import mean_divergence
from bpc.oneshot.ladders import Ladder, Setting
from bpc.oneshot.repair import repair
from bpc.oneshot.search import Costs, search
from bpc.oneshot.stream import Runner, Timeline
from bpc.oneshot.sublayers import Sublayer
from passes.rewrite.refit import Moments

_SPREAD = (0.8, 0.2)  # of the factors' logarithms, at the first candidate and at the last


def scaled(ladders: Mapping[str, Ladder], factors: Mapping[str, float]) -> dict[str, Ladder]:
    """The ladders with every layer's losses multiplied by its factor."""
    return {
        name: dataclasses.replace(ladder, losses={k: factors[name] * loss for k, loss in ladder.losses.items()})
        for name, ladder in ladders.items()
    }


def refine(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    ladders: Mapping[str, Ladder],
    costs: Costs,
    budget: float,
    setting: Setting,
    *,
    candidates: int,
    multiple: int = 8,
    shared: Mapping[str, Moments] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Ladder]:
    """Ladders whose search gives the best of ``candidates`` + 1 choices; the given ones where none is better.

    Repairs on ``setting.probes`` batches, judges on as many others and more (all others where the data are few).
    """
    fit = list(batches[: max(1, min(setting.probes, len(batches) // 2))])
    judge = list(batches[len(fit) : 3 * len(fit)]) or fit
    original = Runner(graph, Timeline(graph))
    random = np.random.default_rng(0)
    best = dict.fromkeys(ladders, 1.0)
    least, tried = np.inf, set()
    for number in range(candidates + 1):
        spread = _SPREAD[0] + (_SPREAD[1] - _SPREAD[0]) * number / max(1, candidates)
        noise = random.normal(0.0, spread, len(best)) if number else np.zeros(len(best))
        factors = {name: factor * float(np.exp(e)) for (name, factor), e in zip(best.items(), noise, strict=True)}
        changed = scaled(ladders, factors)
        kept = search(sublayers, changed, costs, budget, multiple=multiple)
        if (key := tuple(kept.values())) not in tried:
            tried.add(key)
            repaired = repair(graph, sublayers, fit, kept, changed, setting, shared=shared)
            loss = mean_divergence(original, Runner(repaired, original.timeline), judge, setting.multi_label)
            if loss < least:
                least, best = loss, factors
        tick()
    return scaled(ladders, best)
