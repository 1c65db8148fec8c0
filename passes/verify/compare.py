"""A reference recorded on several inputs, and another graph held against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.verify.diverge import first_divergence
from passes.verify.errors import NotFiniteError, VerificationError
from passes.verify.finite import refuse_non_finite
from passes.verify.inputs import fresh_inputs
from passes.verify.run import outputs_of

aten = torch.ops.aten


@dataclass(frozen=True)
class Agreement:
    """How far two graphs are apart: the largest absolute difference, the outputs' scale, and the shapes tried."""

    max_abs_diff: float
    max_rel_diff: float
    scale: float
    dtype: str
    shapes: tuple[str, ...]
    skipped: tuple[str, ...]  # shapes the reference itself does not accept

    def __str__(self) -> str:
        return f"largest difference {self.max_abs_diff:.2e} ({self.dtype}, {len(self.shapes)} input shapes)"


@dataclass(frozen=True)
class Trial:
    """Inputs and what the reference makes of them."""

    description: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Reference:
    """A graph's outputs on the example and on fresh inputs; the graph itself is no longer needed."""

    trials: tuple[Trial, ...]
    skipped: tuple[str, ...]


def record_reference(graph_module: fx.GraphModule, seed: int = 0) -> Reference:
    """Run a graph on the example and on fresh inputs of several shapes.

    Raises `NotFiniteError` if, on the example, its outputs are not finite or a masked weight meets a value that is not
    (0 · inf is NaN in the reference and absent in the candidate: nothing can be promised, exactness trap 11). Fresh
    inputs it does not accept, or on which it is not finite, are listed as skipped.
    """
    refuse_non_finite(graph_module)
    trials, skipped = [], []
    for description, args, kwargs in fresh_inputs(graph_module, seed):
        try:
            expected = outputs_of(graph_module, args, kwargs)
        except Exception:
            if description == "example":
                raise
            skipped.append(description)
            continue
        if all(bool(torch.isfinite(t).all()) for t in expected if t.is_floating_point()):
            trials.append(Trial(description, args, kwargs, tuple(expected)))
        elif description == "example":
            raise NotFiniteError(
                "the masked model's output is not finite on the example inputs, so nothing can be verified: look for "
                "NaN or infinities in its weights, or give another example"
            )
        else:
            skipped.append(description)
    return Reference(tuple(trials), tuple(skipped))


def compare(
    reference: Reference, candidate: fx.GraphModule, *, tolerance: float, locate: Callable[[Trial], str]
) -> Agreement:
    """Run ``candidate`` on the reference's inputs.

    ``tolerance`` bounds max |reference − candidate| / max(1, max |reference|). Over it, raises `VerificationError` with
    what ``locate`` says about the trial.
    """
    worst_abs = worst_rel = scale = 0.0
    dtype = "float32"
    for trial in reference.trials:
        actual = outputs_of(candidate, trial.args, trial.kwargs)
        for a, b in zip(trial.expected, actual, strict=True):
            if not a.is_floating_point():
                if not torch.equal(a, b):
                    raise VerificationError(f"integer output differs on inputs {trial.description}")
                continue
            if a.shape != b.shape:
                raise VerificationError(
                    f"output {tuple(a.shape)} became {tuple(b.shape)} on inputs {trial.description}"
                )
            if a.numel() == 0:
                continue
            dtype = str(a.dtype).removeprefix("torch.")
            difference = float((a.double() - b.double()).abs().max())
            magnitude = float(a.double().abs().max())
            worst_abs, scale = max(worst_abs, difference), max(scale, magnitude)
            worst_rel = max(worst_rel, difference / max(1.0, magnitude))
            if not difference / max(1.0, magnitude) <= tolerance:
                raise VerificationError(
                    f"the small graph differs from the masked one by {difference:.3e} (outputs up to {magnitude:.3g}) "
                    f"on inputs {trial.description}, tolerance {tolerance:.1e}. {locate(trial)}"
                )
    shapes = tuple(trial.description for trial in reference.trials)
    return Agreement(worst_abs, worst_rel, scale, dtype, shapes, reference.skipped)


def verify_equivalent(
    reference: fx.GraphModule, candidate: fx.GraphModule, *, tolerance: float, seed: int = 0
) -> Agreement:
    """Compare two graphs on the example and on fresh inputs; see `record_reference` and `compare`."""

    def locate(trial: Trial) -> str:
        return first_divergence(reference, candidate, trial.args, trial.kwargs, tolerance)

    return compare(record_reference(reference, seed), candidate, tolerance=tolerance, locate=locate)
