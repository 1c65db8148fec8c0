"""A graph run in pieces is the graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import passes
from bpc.oneshot.batches import as_traced, trace_example
from bpc.oneshot.stream import Runner, Spill, Sweep, Timeline
from passes.ir.graph import copy_graph, get_attribute, set_numbers
from tests.bpc.oneshot.models import MODELS, made


@pytest.mark.parametrize("name", MODELS)
def test_pieces_make_the_whole(name: str) -> None:
    model, batches = made(name)
    graph = passes.trace(model, trace_example(model, batches[0]))
    batch = as_traced(graph, batches[1])
    timeline = Timeline(graph)
    runner = Runner(graph, timeline)
    with torch.no_grad():
        wanted = graph(**batch)
    frontier, position = runner.start(batch), 0
    for stop in (*range(7, timeline.end, max(1, timeline.end // 9)), timeline.end - 1):
        frontier, position = runner.run(frontier, position, stop), stop
        assert not any(name in timeline.constant for name in frontier)
    found = runner.outputs(frontier, position)
    assert torch.equal(found.logits, wanted.logits)


def test_a_frontier_holds_no_weight_of_the_past() -> None:
    """A weight changed between two pieces counts in the second, whatever was computed from it in the first."""
    model, batches = made("gpt2")
    graph = passes.trace(model, trace_example(model, batches[0]))
    batch = as_traced(graph, batches[0])
    timeline = Timeline(graph)
    changed = copy_graph(graph)
    name = "transformer.h.1.mlp.c_proj.weight"
    set_numbers(changed, name, get_attribute(graph, name).detach() * 2)
    stop = next(i for i, n in enumerate(timeline.nodes) if n.op == "call_function" and name in str(_reads(n)))
    frontier = Runner(graph, timeline).run(Runner(graph, timeline).start(batch), 0, stop)
    with torch.no_grad():
        assert torch.equal(Runner(changed, timeline).outputs(frontier, stop).logits, changed(**batch).logits)


def _reads(node: torch.fx.Node) -> list[str]:
    return [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]


def test_large_frontiers_go_to_disk_and_come_back(tmp_path: Path) -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    timeline = Timeline(graph)
    runner = Runner(graph, timeline)
    batches = [as_traced(graph, batch) for batch in batches]
    in_memory = Sweep(runner, batches)
    held = list(in_memory.advance(timeline.end // 2))
    on_disk = Sweep(runner, batches, Spill(0, tmp_path))
    list(on_disk.advance(timeline.end // 3))
    for index, frontier in enumerate(on_disk.advance(timeline.end // 2)):
        assert frontier.keys() == held[index].keys() == on_disk[index].keys()
        for key, value in held[index].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(on_disk[index][key], value)
    assert not on_disk._store._held
    assert list(tmp_path.iterdir())
