"""Repair: the units that went are zero, and the others make up for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import passes
from bpc.oneshot.batches import as_traced, trace_example
from bpc.oneshot.divergence import divergence
from bpc.oneshot.ladders import Setting, measure_ladders
from bpc.oneshot.masks import columns_mask
from bpc.oneshot.repair import repair, residual_of
from bpc.oneshot.search import Selection
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import find_sublayers
from passes.ir.graph import copy_graph, get_attribute, set_numbers
from passes.structure.roles import find_roles
from tests.bpc.oneshot.models import MODELS, made


@pytest.mark.parametrize("name", MODELS)
def test_repaired_models_are_nearer_than_masked_ones(name: str) -> None:
    model, batches = made(name)
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    batches = [as_traced(graph, batch) for batch in batches]
    setting = Setting(probes=1, levels=(0.0,), ridge=1e-4)
    ladders, shared = measure_ladders(Original.of(graph), layers, batches, setting)
    kept = {s.name: s.count * 3 // 4 for s in layers}
    changed = repair(Original.of(graph), layers, batches, Selection(kept), ladders, setting, shared=shared)
    masked, repaired = copy_graph(graph), copy_graph(graph)
    for name, numbers in changed.items():
        set_numbers(repaired, name, numbers)
    for layer in layers:
        mask = columns_mask(graph, layer, ladders[layer.name].kept(kept[layer.name]))
        assert not get_attribute(repaired, layer.weight)[~mask].any()
        assert get_attribute(repaired, layer.weight)[mask].any()
        set_numbers(masked, layer.weight, get_attribute(graph, layer.weight).detach() * mask)

    def distance(other: Any) -> float:
        with torch.no_grad():
            return sum(divergence(graph(**b), other(**b), b) for b in batches)

    assert distance(repaired) < 0.8 * distance(masked)


def test_the_residual_is_what_the_output_is_added_to() -> None:
    for name in ("bert", "gpt2", "llama", "t5"):
        model, batches = made(name)
        graph = passes.trace(model, trace_example(model, batches[0]))
        for layer in find_sublayers(graph, find_roles(graph)):
            assert residual_of(graph, layer.nodes[0]) is not None, (name, layer.name)


def test_keeping_everything_changes_nothing() -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    batches = [as_traced(graph, batch) for batch in batches]
    setting = Setting(probes=1, levels=(0.0,))
    ladders, _ = measure_ladders(Original.of(graph), layers, batches, setting)
    assert not repair(
        Original.of(graph), layers, batches, Selection({s.name: s.count for s in layers}), ladders, setting
    )


def test_a_repair_that_was_stopped_goes_on_where_it_was() -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    batches = [as_traced(graph, batch) for batch in batches]
    setting = Setting(probes=1, levels=(0.0,))
    ladders, _ = measure_ladders(Original.of(graph), layers, batches, setting)
    kept = {s.name: s.count if s is layers[0] else s.count // 2 for s in layers}  # the first is left alone
    made_of: dict[str, Any] = {}
    whole = repair(
        Original.of(graph),
        layers,
        batches,
        Selection(kept),
        ladders,
        setting,
        done=lambda layer, numbers: made_of.setdefault(layer.name, numbers),
    )
    assert list(made_of) == [layer.name for layer in layers[1:]]
    known = {name: made_of[name] for name in list(made_of)[:1]} | {layers[-1].name: {"not": torch.zeros(1)}}
    fresh: list[str] = []

    def done(layer: Any, numbers: Any) -> Any:
        fresh.append(layer.name)
        return numbers

    ticks: list[None] = []
    resumed = repair(
        Original.of(graph),
        layers,
        batches,
        Selection(kept),
        ladders,
        setting,
        known=known,
        done=done,
        tick=lambda: ticks.append(None),
    )
    assert fresh == list(made_of)[1:]
    assert len(ticks) == 2 * len(batches) * len(fresh)
    assert {*resumed} == {*whole}
    for name, numbers in whole.items():
        assert torch.equal(resumed[name], numbers)
