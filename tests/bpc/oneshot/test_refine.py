"""Other choices are tried under the same budget, and the better one wins."""

from __future__ import annotations

import pytest

import passes
from bpc.oneshot.batches import trace_example
from bpc.oneshot.costs import counted
from bpc.oneshot.divergence import mean_divergence
from bpc.oneshot.ladders import Ladder, Setting, measure_ladders
from bpc.oneshot.prune import _as_traced
from bpc.oneshot.refine import refine, scaled
from bpc.oneshot.repair import repair
from bpc.oneshot.search import search
from bpc.oneshot.stream import Runner, Timeline
from bpc.oneshot.sublayers import find_sublayers
from bpc.oneshot.target import Target
from passes.structure.roles import find_roles
from tests.bpc.oneshot.models import made


def test_a_misleading_ladder_is_seen_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer's losses fifty times too small: all would be taken from it."""
    monkeypatch.setattr("bpc.oneshot.refine._SPREAD", (3.0, 1.0))
    model, batches = made("gpt2")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    batches = [_as_traced(graph, batch) for batch in batches]
    setting = Setting(probes=2, levels=(0.0, 0.5))
    ladders, _ = measure_ladders(graph, layers, batches, setting)
    wrong = scaled(ladders, {name: 0.02 if name.endswith(".0") else 1.0 for name in ladders})
    costs, budget = counted(graph, layers, Target(density=0.6))
    options = {"candidates": 8, "multiple": 1}
    better = refine(graph, layers, batches, wrong, costs, budget, setting, **options)  # type: ignore[arg-type]
    original = Runner(graph, Timeline(graph))

    def loss(chosen: dict[str, Ladder]) -> float:
        kept = search(layers, chosen, costs, budget, multiple=1)
        assert costs.total(kept) <= budget
        repaired = repair(graph, layers, batches[:2], kept, chosen, setting)
        return mean_divergence(original, Runner(repaired, original.timeline), batches[2:])

    assert loss(better) < loss(wrong)
    same = refine(graph, layers, batches, wrong, costs, budget, setting, candidates=0, multiple=1)
    assert same == wrong


def test_scaling_leaves_orders_alone() -> None:
    ladders = {"a": Ladder((1, 0), {0: 0.5, 1: 0.25})}
    found = scaled(ladders, {"a": 2.0})["a"]
    assert found.order == (1, 0)
    assert found.losses == pytest.approx({0: 1.0, 1: 0.5})
