"""A traced graph run over calibration batches piece by piece, from one sublayer to the next.

Between two pieces, a batch is what the rest of the graph still reads of it: its *frontier*. Every node runs once per
sweep, and the data's size shows in the frontiers alone, which go to disk where they are large. Weights are asked for by
name when a piece reads them, and let go of at its end: they may come from files.
"""

from __future__ import annotations

import tempfile
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from passes.ir.graph import GraphTensors
from passes.ir.info import trace_info

Frontier = dict[str, Any]


class Timeline:
    """The order of a graph's nodes, and until where each value is read.

    Copies of one graph, with other numbers in their weights, share it: nodes go by name. Nodes that depend on nothing
    but weights are not part of a frontier: they are computed where they are read, from the weights of that moment.

    ``bounds``: nodes before which a run lets go of the weights it has read; none where they are in memory anyway.
    """

    def __init__(self, graph_module: fx.GraphModule, bounds: Collection[str] = ()) -> None:
        self.nodes = [n for n in graph_module.graph.nodes if n.op != "output"]
        self.position = {n.name: i for i, n in enumerate(self.nodes)}
        self.end = len(self.nodes)
        self.constant: set[str] = set()
        self.last_use: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            if node.op == "get_attr" or (
                node.op == "call_function"
                and node.all_input_nodes
                and all(n.name in self.constant for n in node.all_input_nodes)
            ):
                self.constant.add(node.name)
            elif node.op != "placeholder":
                for read in node.all_input_nodes:
                    self.last_use[read.name] = index
        output = next(n for n in graph_module.graph.nodes if n.op == "output")
        for read in output.all_input_nodes:
            self.last_use[read.name] = self.end
        self.placeholders = [n.name for n in self.nodes if n.op == "placeholder"]
        self.bounds = frozenset(self.position[name] for name in bounds)

    def stretches(self, begin: int) -> list[tuple[int, int]]:
        """The way from node ``begin`` to the end, cut at the bounds: (first, end) of each piece."""
        return list(pairwise([begin, *sorted(b for b in self.bounds if begin < b < self.end), self.end]))

    def reads_after(self, position: int) -> set[str]:
        """Names of the weights that nodes from ``position`` on are computed from."""
        wanted = {read for node in self.nodes[position:] for read in node.all_input_nodes}
        waiting = [node for node in wanted if node.name in self.constant]
        found = set()
        while waiting:
            node = waiting.pop()
            found |= {str(node.target)} if node.op == "get_attr" else set()
            waiting += node.all_input_nodes
        return found


class Runner:
    """Runs stretches of one graph module. ``timeline`` may come from another copy of the same graph.

    ``weights``: by the names the graph reads them under, asked for when they are read; default: the graph's own.
    """

    def __init__(
        self, graph_module: fx.GraphModule, timeline: Timeline, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        self.graph_module, self.timeline = graph_module, timeline
        self._weights = GraphTensors(graph_module) if weights is None else weights
        self._interpreter = fx.Interpreter(graph_module, garbage_collect_values=False)
        self._nodes = [n for n in graph_module.graph.nodes if n.op != "output"]
        self._output = next(n for n in graph_module.graph.nodes if n.op == "output")

    def start(self, batch: Mapping[str, Any]) -> Frontier:
        """The frontier of inputs; ``batch`` has the keywords of the example that was traced."""
        info = trace_info(self.graph_module)
        missing = [name for name in info.kwargs if name not in batch]
        if missing:
            raise KeyError(missing[0])
        leaves = pytree.tree_leaves((info.args, {name: batch[name] for name in info.kwargs}))
        return dict(zip(self.timeline.placeholders, leaves, strict=True))

    @torch.no_grad()
    def run(self, frontier: Frontier, begin: int, end: int) -> Frontier:
        """Execute nodes ``begin`` up to ``end`` (excluded); returns what later nodes read. ``frontier`` stays whole."""
        values, constants = dict(frontier), Frontier()
        timeline = self.timeline
        for index in range(begin, end):
            if index in timeline.bounds:
                constants.clear()
            node = self._nodes[index]
            if node.op == "placeholder" or node.name in timeline.constant:
                continue
            values[node.name] = self._execute(node, values, constants)
            for read in node.all_input_nodes:
                if timeline.last_use.get(read.name, -1) <= index:
                    values.pop(read.name, None)
            if node.name not in timeline.last_use:
                values.pop(node.name)
        if end == timeline.end:
            return {n.name: self._value(n, values, constants) for n in self._output.all_input_nodes}
        return values

    # Methods, not functions inside `run`: two of those that call each other would keep what they see until the garbage
    # collector comes by.
    def _value(self, node: fx.Node, values: Frontier, constants: Frontier) -> Any:
        if node.name not in self.timeline.constant:
            return values[node.name]
        if node.name not in constants:
            constants[node.name] = self._execute(node, values, constants)
        return constants[node.name]

    def _execute(self, node: fx.Node, values: Frontier, constants: Frontier) -> Any:
        if node.op == "get_attr":
            return self._weights[str(node.target)]
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda read: self._value(read, values, constants))
        return getattr(self._interpreter, node.op)(node.target, args, kwargs)

    def outputs(self, frontier: Frontier, begin: int = 0) -> Any:
        """What the model returns, from a frontier before node ``begin``."""
        values = self.run(frontier, begin, self.timeline.end)
        flat = fx.map_arg(self._output.args[0], lambda n: values[n.name])
        return self.graph_module.graph.process_outputs(flat)


@dataclass(frozen=True)
class Spill:
    """Where activations wait: ``in_memory`` bytes where they are, the others in files in ``folder`` (default: the
    system's for temporary files)."""

    in_memory: int = 2**28
    folder: Path | None = None


@dataclass(frozen=True)
class Original:
    """The model that is pruned: its graph, its numbers, and where activations wait between two pieces of it.

    ``weights``: by name, in memory or read when they are asked for.
    """

    graph: fx.GraphModule
    weights: Mapping[str, Tensor]
    timeline: Timeline
    spill: Spill = Spill()

    @staticmethod
    def of(graph: fx.GraphModule) -> Original:
        """A graph with its numbers in it."""
        return Original(graph, GraphTensors(graph), Timeline(graph))

    def with_numbers(self, instead: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights, some of them replaced; ``instead`` is looked into whenever one is read."""
        return ChainMap(instead, self.weights)  # type: ignore[arg-type]  # nothing is written to it

    def runner(self, instead: Mapping[str, Tensor] | None = None) -> Runner:
        """The model, or with other numbers in some of its weights."""
        return Runner(self.graph, self.timeline, self.weights if instead is None else self.with_numbers(instead))

    def sweep(self, batches: Sequence[Mapping[str, Any]], instead: Mapping[str, Tensor] | None = None) -> Sweep:
        """All batches before their first node."""
        return Sweep(self.runner(instead), batches, self.spill)


class Sweep:
    """All batches on their way through one graph."""

    def __init__(self, runner: Runner, batches: Sequence[Mapping[str, Any]], spill: Spill = Spill()) -> None:
        self.runner = runner
        self.count = len(batches)
        self._reached = [0] * self.count
        self._store = Store(spill)
        for index, batch in enumerate(batches):
            self._store[index] = runner.start(batch)

    def __getitem__(self, index: int) -> Frontier:
        return self._store[index]

    def advance(self, position: int, tick: Callable[[], None] = lambda: None) -> Iterator[Frontier]:
        """Run every batch up to the node at ``position`` (excluded); yields the frontiers there, in order."""
        for index in range(self.count):
            frontier = self.runner.run(self._store[index], self._reached[index], position)
            self._store[index], self._reached[index] = frontier, position
            tick()
            yield frontier


class Store:
    """Frontiers by number, in memory while they are small in all, else in files that go with the process."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._held: dict[int, Frontier] = {}
        self._bytes: dict[int, int] = {}

    def __setitem__(self, index: int, frontier: Frontier) -> None:
        size = sum(v.numel() * v.element_size() for v in frontier.values() if isinstance(v, Tensor))
        self._held.pop(index, None)
        if sum(self._bytes[i] for i in self._held) + size <= self._spill.in_memory:
            self._held[index], self._bytes[index] = frontier, size
            return
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="bpc-calibration-", dir=self._spill.folder)
        torch.save(frontier, self._path(index))

    def __getitem__(self, index: int) -> Frontier:
        if index in self._held:
            return self._held[index]
        loaded: Frontier = torch.load(self._path(index), weights_only=True)
        return loaded

    def _path(self, index: int) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{index}.pt"
