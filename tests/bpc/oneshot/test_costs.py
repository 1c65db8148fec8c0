"""Counted costs against what a compiled model holds, and timed ones against times made up."""

from __future__ import annotations

import numpy as np
import pytest

import passes
from bpc.costs import Widths
from bpc.oneshot.batches import as_traced, trace_example
from bpc.oneshot.costs import counted, probe_graph, probes_of, timed
from bpc.oneshot.heads import find_heads
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.masks import columns_mask, masks_of
from bpc.oneshot.search import Selection
from bpc.oneshot.sublayers import find_sublayers
from bpc.oneshot.target import Target
from passes.ir.graph import get_attribute
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


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5"])
def test_narrow_heads_count_what_the_small_model_holds(name: str) -> None:
    model, batches = made(name)
    graph = passes.trace(model, trace_example(model, batches[0]))
    roles = find_roles(graph)
    layers = find_sublayers(graph, roles)
    heads = find_heads(graph, layers, roles, as_traced(graph, batches[0]))
    ladders = {s.name: Ladder(tuple(range(s.count)), {}) for s in layers}
    kept = {s.name: s.count - 1 for s in layers}
    widths = {n: Widths(4, 2 if h.key is not None else 8, 8) for n, h in heads.items()}
    selection = Selection(kept, widths)
    small = passes.shrink(graph, masks_of(graph, layers, ladders, selection, heads), verify=False).graph_module
    costs, _ = counted(graph, layers, Target(params=0.5), heads)
    vectors = sum(p.numel() for p in graph.parameters() if p.dim() < 2)
    found = sum(p.numel() for p in small.parameters() if p.dim() > 1)
    assert found == pytest.approx(costs.total(kept, widths) - vectors, rel=0.004)


def test_times_of_narrow_heads() -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    roles = find_roles(graph)
    layers = find_sublayers(graph, roles)
    heads = find_heads(graph, layers, roles, as_traced(graph, batches[0]))

    def seconds(probe: dict[str, float]) -> float:
        inside = 0.2 + 0.5 * probe.get("values", 1.0) + 0.3 * probe.get("keys", 1.0)
        return 1.0 + 2.0 * probe.get("attention", 1.0) * inside + 3.0 * probe.get("ffn", 1.0)

    for alike, each in ((False, (0.5, 0.3)), (True, (0.4, 0.4))):
        probes = probes_of(layers, heads, alike)
        costs, _ = timed(graph, layers, heads, Target(speedup=2), [seconds(p) for p in probes], alike)
        assert costs.shares == {name: pytest.approx(each) for name in heads}
        narrow = {name: Widths(4, 4, 8) for name in heads}
        assert costs.total(None, narrow) == pytest.approx(seconds({"values": 0.5, "keys": 0.5}))
    small = probe_graph(graph, layers, heads, {"values": 0.5, "keys": 0.5})
    outs = [s.weight for s in layers if s.unit == "head"]
    assert [get_attribute(small, name).shape[1] for name in outs] == [16, 16]
