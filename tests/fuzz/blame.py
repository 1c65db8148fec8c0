"""Which step of the way is guilty: the graph after every pass, held against the masked eager model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

import passes
from passes.driver import shrink_passes
from passes.frontend.bake import BakeWeights
from passes.ir.info import InputError
from passes.ir.manager import PassManager
from passes.masks import resolve_masks
from tests.fuzz.forms import Case, Trial, example_of, given_model, masked_copy, raised, readable, record, run
from tests.fuzz.program import build

AGAIN = ("fold-constants", "shrink-dims", "retrace", "replace-constants", "drop-noop-slices")


def guilty_step(case: Case) -> str:
    """The name of the first step whose result raises or differs; "nothing" where all steps agree."""
    model = build(case.program)
    plain = record(model, case.coarse)
    exported = _verdict(lambda: torch.export.export(given_model(case), example_of(case)).module(check_guards=False))
    if isinstance(exported, str):
        return f"torch.export ({exported})"
    reference = masked_copy(model, case.masks)
    trials = record(reference, case.coarse)
    at_start = trials if case.zeros else plain
    example = [t for t in at_start if t.inputs[0].shape[:2] == example_of(case)[0].shape[:2]]
    difference = _difference(exported, example)
    if difference is not None:
        return f"torch.export: {difference}"
    graph = _verdict(lambda: passes.trace(given_model(case), example_of(case)))
    if isinstance(graph, str):
        return f"trace: {graph}"
    difference = _difference(graph, at_start)
    if difference is not None:
        return f"trace: {difference}"
    for name, outcome in _stages(graph, case):
        if isinstance(outcome, str):
            return f"{name}: {outcome}"
        difference = _difference(outcome, trials if name != "bake-weights" else at_start)
        if difference is not None:
            return f"{name}: {difference}"
    return "nothing"


def _stages(graph: fx.GraphModule, case: Case) -> Iterator[tuple[str, fx.GraphModule | str]]:
    masks = None if case.zeros else readable(graph, case.masks)
    current = _verdict(lambda: PassManager((BakeWeights(),)).run(graph).graph_module)
    yield "bake-weights", current
    if isinstance(current, str):
        return
    resolved = _verdict(lambda: resolve_masks(current, masks))
    if isinstance(resolved, str):
        yield "masks", resolved
        return
    first = shrink_passes(resolved)
    again = [p for p in first if p.name in AGAIN]
    for round_, steps in (("", first), (" (again)", again), (" (third)", again)):
        for step in steps:
            before = current
            current = _verdict(lambda step=step, before=before: PassManager((step,)).run(before).graph_module)
            yield f"{step.name}{round_}", current
            if isinstance(current, str):
                return


def _verdict(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        return raised("", error).detail.replace("\n", ": ")[:200]


def _difference(module: Callable[..., Any], trials: list[Trial]) -> str | None:
    for trial in trials:
        sizes = "x".join(map(str, trial.inputs[0].shape[:2]))
        try:
            outputs = run(module, trial.inputs)
        except InputError:
            continue
        except Exception as error:
            return f"does not run on {sizes}: {type(error).__name__}: {error}"[:200]
        difference = trial.difference(outputs)
        if difference is not None:
            return f"{difference} on {sizes}"
    return None
