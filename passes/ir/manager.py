"""The pass infrastructure: requires → run → ensures, with the graph verified after every pass."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx

from passes.ir.info import without_reference
from passes.ir.invariants import GraphInvariantError, check_graph, empty_parameters


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

    `run` leaves the graph it is given as it is, works on a copy (`passes.ir.graph.copy_graph`), and says honestly
    whether the result differs.
    """

    name: str = "pass"
    keeps_reference: bool = False  # the result still computes what the traced model does, from the same parameters

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
        empty = empty_parameters(graph_module)
        current = [graph_module]  # a list, so that a pass can free what it replaces while it runs
        del graph_module
        for step in self.passes:
            with _named(step, done):
                step.requires(current[0])
                with torch.no_grad():
                    result = step.run(current.pop())
                step.ensures(result.graph_module)
                check_graph(result.graph_module, may_be_empty=empty)
            if result.modified and not step.keeps_reference:
                result.graph_module.meta = without_reference(result.graph_module.meta)
            modified |= result.modified
            facts[step.name] = result.facts
            current.append(result.graph_module)
            done.append(PassRecord.of(step.name, result))
            del result
        return PassResult(current[0], modified, facts, tuple(done))


@contextlib.contextmanager
def _named(step: Pass, done: list[PassRecord]) -> Iterator[None]:
    """What fails inside becomes a `PassError` that names the pass; what this package says itself keeps its type."""
    where = f"pass {step.name}"
    before = f"after {', '.join(record.name for record in done) or 'nothing'}"
    try:
        yield
    except GraphInvariantError as error:
        raise PassError(f"{where} left a broken graph ({before}): {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] == __name__.partition(".")[0]:
            error.add_note(f"in {where} ({before})")
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise PassError(
            f"{where} failed ({before}): {type(error).__name__}: {text}\n"
            f"  at {Path(frame.filename).name}:{frame.lineno} in {frame.name}. "
            "This is a fault of bpc: please report it, with the model's forward"
        ) from error
