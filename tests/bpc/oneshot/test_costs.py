"""Counted costs against what a compiled model holds, and timed ones against times made up."""

from __future__ import annotations

import numpy as np
import pytest

import passes
from bpc.oneshot.batches import trace_example
from bpc.oneshot.costs import counted, probe_graph, probes_of, timed
from bpc.oneshot.ladders import Ladder
from bpc.oneshot.masks import columns_mask
from bpc.oneshot.sublayers import find_sublayers
from bpc.oneshot.target import Target
from passes.structure.role import Family
from passes.structure.roles import find_roles
from tests.bpc.oneshot.models import MODELS, made


@pytest.mark.parametrize("name", MODELS)
def test_counted_parameters_are_those_of_the_small_model(name: str) -> None:
    model, batches = made(name)
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    kept = {s.name: s.count - 1 - i % 2 * (s.size == 1) for i, s in enumerate(layers)}
    masks = {s.weight: columns_mask(graph, s, Ladder(tuple(range(s.count)), {}).kept(kept[s.name])) for s in layers}
    small = passes.shrink(graph, masks).graph_module
    costs, budget = counted(graph, layers, Target(params=0.5))
    whole = sum(p.numel() for p in graph.parameters())
    assert costs.total() == whole
    assert budget == whole / 2
    # Matrices are counted; biases, and T5's tables of positions by head, go beside them.
    vectors = sum(p.numel() for p in graph.parameters() if p.dim() < 2)
    found = sum(p.numel() for p in small.parameters() if p.dim() > 1)
    assert found <= costs.total(kept) - vectors
    assert found == pytest.approx(costs.total(kept) - vectors, rel=0.003)


def test_other_units() -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    costs, budget = counted(graph, layers, Target(bytes=10_000))
    assert (costs.unit, budget) == ("bytes", 10_000)
    assert costs.total() == 4 * sum(p.numel() for p in graph.parameters())
    costs, budget = counted(graph, layers, Target(density=0.25))
    assert budget == costs.fixed + 0.25 * (costs.total() - costs.fixed)


def test_times_add_up_to_the_probes() -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    probes = probes_of(layers, {}, True)
    assert probes[0] == {}

    def seconds(shares: dict[str, float]) -> float:
        return 1.0 + 2.0 * shares.get(Family.ATTENTION, 1.0) + 3.0 * shares.get(Family.FFN, 1.0)

    costs, budget = timed(graph, layers, {}, Target(speedup=2), [seconds(p) for p in probes], True)
    assert all(
        not isinstance(size, int) or size != 8
        for node in graph.graph.nodes
        if node.op == "placeholder"
        for size in node.meta["val"].shape[:1]
    )  # asking for a size as a number would have fixed the batch at the example's
    assert costs.total() == pytest.approx(6.0)
    assert costs.fixed == pytest.approx(1.0)
    assert budget == pytest.approx(3.0)
    half = {s.name: s.count // 2 for s in layers}
    assert costs.total(half) == pytest.approx(3.5)
    for table in costs.tables.values():
        assert np.all(np.diff(table) >= 0)


def test_a_probe_is_a_model_of_that_share() -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    small = probe_graph(graph, layers, {}, {Family.FFN: 0.25})
    shapes = {tuple(p.shape) for n, p in small.named_parameters() if "intermediate.dense.weight" in n}
    assert shapes == {(12, 32)}
    assert probe_graph(graph, layers, {}, {}) is graph
