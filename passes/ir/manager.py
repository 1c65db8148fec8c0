"""The pass infrastructure: requires → run → ensures, with the graph verified after every pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from passes.ir.invariants import GraphInvariantError, check_graph


@dataclass(frozen=True)
class PassRecord:
    """One pass that ran: whether it changed anything, and how many things of each kind it reports."""

    name: str
    modified: bool
    counts: Mapping[str, int]

    @staticmethod
    def of(name: str, result: PassResult) -> PassRecord:
        sized = {k: len(f) for k, f in result.facts.items() if isinstance(f, tuple | list | Mapping)}
        counted = {k: f for k, f in result.facts.items() if isinstance(f, int)}
        return PassRecord(name, result.modified, sized | counted)


@dataclass(frozen=True)
class PassResult:
    """What a pass returns: the graph, whether it differs from what came in, and what to tell the user."""

    graph_module: fx.GraphModule
    modified: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    record: tuple[PassRecord, ...] = ()  # of a `PassManager`: what ran, in order


class PassError(RuntimeError):
    """A pass failed; the message names it and the passes that ran before it."""


class Pass:
    """One rewrite of a traced graph. Subclasses are frozen dataclasses that implement `run`.

    `run` leaves the graph it is given as it is, works on a copy (`passes.graph.copy_graph`), and says honestly whether
    the result differs.
    """

    name: str = "pass"

    def requires(self, graph_module: fx.GraphModule) -> None:
        """Raise if the graph is not what this pass works on."""

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        raise NotImplementedError

    def ensures(self, graph_module: fx.GraphModule) -> None:
        """Raise if the result is not what later passes rely on."""


@dataclass(frozen=True)
class PassManager:
    """Run passes in order; check requirements, results and graph invariants around each, in production too."""

    passes: Sequence[Pass]

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        facts: dict[str, Any] = {}
        modified = False
        done: list[PassRecord] = []
        current = [graph_module]  # a list, so that a pass can free what it replaces while it runs
        del graph_module
        for step in self.passes:
            try:
                step.requires(current[0])
                with torch.no_grad():
                    result = step.run(current.pop())
                step.ensures(result.graph_module)
                check_graph(result.graph_module)
            except GraphInvariantError as error:
                before = [record.name for record in done] or "nothing"
                raise PassError(f"pass {step.name} left a broken graph (after {before}): {error}") from error
            modified |= result.modified
            facts[step.name] = result.facts
            current.append(result.graph_module)
            done.append(PassRecord.of(step.name, result))
            del result
        return PassResult(current[0], modified, facts, tuple(done))
