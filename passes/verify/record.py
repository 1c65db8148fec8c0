"""The reference: what a masked graph computes on several inputs, and how much of that is rounding.

All inputs go through the graph together, node by node, each in the model's own precision and in float64 (`Run`), so
that a weight is cast once, and one weight at a time is held in double.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.ir.graph import get_attribute
from passes.ir.info import Guard, trace_info
from passes.verify.blind import BlindRows, find_blind_rows, moved_outputs, names_of
from passes.verify.errors import NotFiniteError, VerificationError
from passes.verify.finite import check_linear_input
from passes.verify.floor import Bounds, Sample
from passes.verify.inputs import Draw, trial_inputs
from passes.verify.run import Casts, Run


@dataclass(frozen=True)
class Trial:
    """Inputs, what the reference makes of them (one sample per output tensor), and what is not compared there.

    ``exact``: whether every value of the float64 run was computed in float64.
    """

    draw: Draw
    expected: tuple[Sample, ...]
    excluded: int = 0  # output positions
    why: str = ""
    exact: bool = True

    @property
    def description(self) -> str:
        return self.draw.description

    @property
    def args(self) -> tuple[Any, ...]:
        return self.draw.args

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.draw.kwargs


@dataclass(frozen=True)
class Reference:
    """A graph's outputs on the example and on fresh inputs; the graph itself is no longer needed.

    ``bounds``: per output what rounding explains; None for outputs that are not floating. ``skipped``: inputs that the
    graph does not accept or that leave nothing to compare, with the reason.
    """

    trials: tuple[Trial, ...]
    skipped: tuple[str, ...]
    bounds: tuple[Bounds | None, ...]


def record_reference(reference: fx.GraphModule, seed: int = 0, *, traced: fx.GraphModule | None = None) -> Reference:
    """Run a graph on the example and on fresh inputs of several shapes.

    ``traced`` is the graph that `passes.trace` made, where ``reference`` itself (torch.export's own module, say) does
    not carry the example and the symbolic sizes; both take the same inputs.

    Raises `NotFiniteError` if, on the example, its outputs are not finite or a masked weight meets a value that is not
    (0 · inf is NaN in the reference and absent in the candidate: nothing can be promised), and
    `VerificationError` if every output depends on attention rows that see no key. Fresh inputs it does not accept, or
    on which it is not finite, are listed as skipped.
    """
    trials: list[Trial] = []
    skipped: list[str] = []
    waiting, guards = trial_inputs(traced or reference, seed), trace_info(traced or reference).guards
    while waiting:
        lanes = [_Lane(reference, choices[0], guards) for choices in waiting]
        _run_together(reference, lanes)
        again = []
        for lane, choices in zip(lanes, waiting, strict=True):
            trial, reason = _finish(reference, lane)
            if trial is not None:
                trials.append(trial)
            elif len(choices) > 1:
                again.append(choices[1:])
            else:
                skipped.append(f"{lane.draw.description}: {reason}")
        waiting = again
    if not trials:
        raise VerificationError("nothing is left to compare: " + "; ".join(skipped))
    outputs = [[trial.expected[i] for trial in trials] for i in range(len(trials[0].expected))]
    bounds = [Bounds(samples) if samples[0].own.is_floating_point() else None for samples in outputs]
    return Reference(tuple(trials), tuple(skipped), tuple(bounds))


class _Lane:
    """One input on its way through the graph, in every precision that is needed."""

    def __init__(self, graph_module: fx.GraphModule, draw: Draw, guards: Sequence[Guard]) -> None:
        self.draw = draw
        self.blind: list[BlindRows] = []
        self.leaves = leaves = pytree.tree_leaves((draw.args, draw.kwargs))
        refused = [] if draw.example else [guard.message for guard in guards if not guard.holds(leaves)]
        self.error = refused[0] if refused else None
        dtypes = _floating(graph_module, leaves)
        self.own = Run(graph_module, leaves)
        self.exact = self.own
        if dtypes != {torch.float64}:
            self.exact = Run(graph_module, leaves, torch.float64, twin=self.own)
        self.coarse = None
        if torch.float64 in dtypes:
            self.coarse = Run(graph_module, leaves, torch.float32, twin=self.own)
        self.runs = list(dict.fromkeys(run for run in (self.own, self.exact, self.coarse) if run is not None))

    def step(self, node: fx.Node) -> None:
        for run in self.runs:
            run.step(node)
        self.blind += find_blind_rows(node, self.own)
        if self.draw.example and not self.blind:
            check_linear_input(node, self.own)


def _run_together(graph_module: fx.GraphModule, lanes: Sequence[_Lane]) -> None:
    """Run every lane, node by node. A lane whose input the graph refuses ends there; the example's error is raised."""
    casts = Casts()
    for lane in lanes:
        for run in lane.runs:
            run.casts = casts
    with torch.no_grad():
        for node in graph_module.graph.nodes:
            for lane in lanes:
                if lane.error is not None:
                    continue
                try:
                    lane.step(node)
                except Exception as error:
                    if lane.draw.example:
                        raise
                    lane.error = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                    for run in lane.runs:
                        run.env.clear()
                for run in lane.runs:
                    run.free(node)
            casts.clear()


def _finish(graph_module: fx.GraphModule, lane: _Lane) -> tuple[Trial | None, str]:
    """The trial, or None and why there is none."""
    if lane.error is not None:
        return None, lane.error
    own, exact = lane.own.outputs, lane.exact.outputs
    coarse: Sequence[torch.Tensor | None] = [None] * len(own) if lane.coarse is None else lane.coarse.outputs
    moved: Sequence[torch.Tensor | None] = [None] * len(own)
    excluded, why = 0, ""
    if lane.blind:
        moved = moved_outputs(graph_module, lane.leaves, lane.blind, (own, exact), check=lane.draw.example)
        excluded = sum(_positions(m) for m in moved if m is not None)
        why = f"rows of {names_of(lane.blind)} see no key" if excluded else ""
        if all(m is not None and bool(m.all()) for m in moved):
            return None, f"every output depends on rows of {names_of(lane.blind)} that see no key"
    samples = []
    for m, precise, g, gone in zip(own, exact, coarse, moved, strict=True):
        compared = None if gone is None or not bool(gone.any()) else ~gone
        if m.is_floating_point():
            seen = m if compared is None else m.masked_fill(~compared, 0.0)
            if not bool(torch.isfinite(seen).all()):
                if lane.draw.example:
                    raise NotFiniteError(
                        "the masked model's output is not finite on the example inputs, so nothing can be verified: "
                        "look for NaN or infinities in its weights, or give another example"
                    )
                return None, "the masked model's output is not finite"
            precise = torch.where(torch.isfinite(precise), precise, m.to(precise.dtype))
        samples.append(Sample(m, precise, g, compared))
    return Trial(lane.draw, tuple(samples), excluded, why, not lane.exact.borrowed), ""


def _positions(moved: torch.Tensor) -> int:
    """Positions (all dims but the last of three and more) in which anything moved."""
    return int((moved.any(-1) if moved.dim() >= 3 else moved).sum())


def _floating(graph_module: fx.GraphModule, leaves: Sequence[Any]) -> set[torch.dtype]:
    """The floating dtypes of inputs, weights and values."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    for node in graph_module.graph.nodes:
        value = get_attribute(graph_module, str(node.target)) if node.op == "get_attr" else node.meta.get("val")
        tensors += [value] if isinstance(value, torch.Tensor) else []
    return {t.dtype for t in tensors if t.is_floating_point()}
