"""A small graph held against the recorded reference: judged by rounding, or by a tolerance that is given."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.verify.diverge import first_divergence
from passes.verify.errors import VerificationError
from passes.verify.exactly import exactness, numbers_anew
from passes.verify.floor import Bounds, Sample
from passes.verify.record import Reference, Trial, record_reference
from passes.verify.run import exact_run, outputs_of


@dataclass(frozen=True, repr=False)
class Agreement:
    """How far two graphs are apart, and how far rounding alone puts the masked one from the truth.

    ``max_abs_diff``: largest |small - masked|, both in the model's precision; ``max_rel_diff``: over max(1, scale) on
    the same inputs; ``scale``: largest |masked|. ``floor``: largest |masked - masked in float64| (see
    `passes.verify.floor`). ``used``: the largest share of what rounding explains that small against float64 takes; 1
    is refused. ``shapes``, ``skipped``: inputs tried, and those that could not be, with the reason. ``excluded``:
    output positions that were not compared, ``why`` each time; ``fresh``: how many inputs had other sizes than the
    example. ``exactly``: where rounding explains too much, the largest share of what float64 allows (see
    `passes.verify.exactly`); None where it was not asked.
    """

    max_abs_diff: float
    max_rel_diff: float
    scale: float
    floor: float
    used: float
    dtype: str
    shapes: tuple[str, ...]
    skipped: tuple[str, ...]
    fresh: int = 0
    excluded: int = 0
    why: tuple[str, ...] = ()
    exactly: float | None = None

    def __repr__(self) -> str:
        return f"Agreement({self})"

    def __str__(self) -> str:
        shapes = f"{len(self.shapes)} input shapes" if self.fresh else "no shape but the example's"
        out = f", {self.excluded} positions that see no key left out" if self.excluded else ""
        exactly = "" if self.exactly is None else "; in float64 they agree"
        return (
            f"largest difference {self.max_abs_diff:.2e}, rounding alone {self.floor:.2e} ({self.dtype}, {shapes}{out})"
            f"{exactly}"
        )


def compare(
    reference: Reference,
    candidate: Callable[..., Any],
    *,
    tolerance: float | None = None,
    locate: Callable[[Trial], str] | None = None,
    anew: Collection[str] = (),
) -> Agreement:
    """Run ``candidate``, a graph or any callable, on the reference's inputs.

    It must agree within what rounding explains (`passes.verify.floor`) or, if given, within ``tolerance``, which bounds
    max |reference - candidate| / max(1, max |reference|). Outputs that are not floating are equal wherever rounding
    does not decide them. Where rounding explains too much, a graph is also run in float64; ``anew`` names the numbers
    that it holds and the reference does not. Raises `VerificationError` with what ``locate`` says about the trial.
    """
    judge = _Judge(reference, candidate, tolerance, locate or (lambda trial: ""), anew)
    for trial in reference.trials:
        judge.hear(trial)
    return judge.agreement()


def verify_equivalent(
    reference: fx.GraphModule,
    candidate: fx.GraphModule,
    *,
    tolerance: float | None = None,
    seed: int = 0,
    traced: fx.GraphModule | None = None,
) -> Agreement:
    """Compare two graphs on the example and on fresh inputs; arguments as for `record_reference` and `compare`."""

    def locate(trial: Trial) -> str:
        return first_divergence(reference, candidate, trial.args, trial.kwargs)

    recorded = record_reference(reference, seed, traced=traced)
    return compare(recorded, candidate, tolerance=tolerance, locate=locate, anew=numbers_anew(candidate, reference))


class _Judge:
    def __init__(
        self,
        reference: Reference,
        candidate: Callable[..., Any],
        tolerance: float | None,
        locate: Callable[[Trial], str],
        anew: Collection[str],
    ) -> None:
        self.reference, self.candidate, self.tolerance, self.locate = reference, candidate, tolerance, locate
        self.anew = anew
        self.exactly: float | None = None
        self.worst_abs = self.worst_rel = self.scale = self.used = 0.0
        self.dtype = "float32"

    def hear(self, trial: Trial) -> None:
        try:
            actual = outputs_of(self.candidate, trial.args, trial.kwargs)
        except Exception as error:
            raise VerificationError(
                f"the small graph fails on inputs {trial.description}, which the masked one accepts: "
                f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            ) from error
        if len(actual) != len(trial.expected):
            raise VerificationError(f"the small graph has {len(actual)} outputs, the masked one {len(trial.expected)}")
        for i, (sample, value) in enumerate(zip(trial.expected, actual, strict=True)):
            if sample.own.shape != value.shape:
                raise VerificationError(
                    f"output {tuple(sample.own.shape)} became {tuple(value.shape)} on inputs {trial.description}"
                )
            if sample.own.dtype != value.dtype:
                raise VerificationError(f"output {sample.own.dtype} became {value.dtype} on inputs {trial.description}")
            bounds = self.reference.bounds[i]
            if bounds is None:
                self._decisions(trial, i, sample, value)
            elif value.numel():
                self._numbers(trial, sample, value, bounds)
        if self.tolerance is None and any(bounds is not None and bounds.blunt for bounds in self.reference.bounds):
            self._exactly(trial)

    def _exactly(self, trial: Trial) -> None:
        if not isinstance(self.candidate, fx.GraphModule):
            return
        found = exactness(self.candidate, self.reference, trial, self.anew)
        if found is None:
            return
        if not found.used <= 1:
            raise VerificationError(
                f"the small graph differs from the masked one by {found.error:.3e} in float64 (outputs up to "
                f"{self.scale:.3g}) on inputs {trial.description}, {found.used:.3g} times what the rounding of its new "
                f"numbers explains; in {self.dtype} rounding would hide it. {self.locate(trial)}"
            )
        self.exactly = max(self.exactly or 0.0, found.used)

    def agreement(self) -> Agreement:
        trials = self.reference.trials
        return Agreement(
            self.worst_abs,
            self.worst_rel,
            self.scale,
            max((b.floor for b in self.reference.bounds if b is not None), default=0.0),
            self.used,
            self.dtype,
            tuple(t.description for t in trials),
            self.reference.skipped,
            sum(t.draw.fresh for t in trials),
            sum(t.excluded for t in trials),
            tuple(f"{t.description}: {t.excluded} positions: {t.why}" for t in trials if t.excluded),
            self.exactly,
        )

    def _numbers(self, trial: Trial, sample: Sample, value: torch.Tensor, bounds: Bounds) -> None:
        masked = sample.seen(sample.own.double())
        difference = float((masked - sample.seen(value.double())).abs().nan_to_num(torch.inf, torch.inf).max())
        magnitude = float(masked.abs().max())
        used, error = bounds.excess(sample, value)
        self.dtype = str(value.dtype).removeprefix("torch.")
        self.worst_abs, self.scale = max(self.worst_abs, difference), max(self.scale, magnitude)
        self.worst_rel = max(self.worst_rel, difference / max(1.0, magnitude))
        self.used = max(self.used, used)
        if self.tolerance is not None and not difference / max(1.0, magnitude) <= self.tolerance:
            raise VerificationError(
                f"the small graph differs from the masked one by {difference:.3e} (outputs up to {magnitude:.3g}) on "
                f"inputs {trial.description}, tolerance {self.tolerance:.1e}; the masked model's own rounding is "
                f"{bounds.floor:.1e}. {self.locate(trial)}"
            )
        if self.tolerance is None and not used <= 1:
            raise VerificationError(
                f"the small graph differs from the masked one by {error:.3e} (outputs up to {magnitude:.3g}) on inputs "
                f"{trial.description}, {used:.3g} times what rounding explains there. {self.locate(trial)}"
            )

    def _decisions(self, trial: Trial, index: int, sample: Sample, value: torch.Tensor) -> None:
        """Integers and truth values: equal, but where rounding turns the scale in the masked or the small graph."""
        differs = (sample.own != value) & (sample.own == sample.exact)
        if sample.compared is not None:
            differs &= sample.compared
        if not bool(differs.any()):
            return
        if isinstance(self.candidate, fx.GraphModule):
            exactly = exact_run(self.candidate, pytree.tree_leaves((trial.args, trial.kwargs))).outputs[index]
            differs &= exactly != sample.exact
        if bool(differs.any()):
            raise VerificationError(
                f"the small graph's {str(value.dtype).removeprefix('torch.')} output differs from the masked one's at "
                f"{int(differs.sum())} of {differs.numel()} entries on inputs {trial.description}, where rounding does "
                f"not decide. {self.locate(trial)}"
            )
