"""What the module view has to reproduce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from passes.ir.info import trace_info
from passes.plan.errors import ModuleViewError
from passes.verify.errors import VerificationError
from passes.verify.record import Reference, Trial, record_reference
from passes.verify.run import outputs_of


@dataclass(frozen=True)
class Check:
    """The traced example, and what the module view has to compute on it and on inputs of other shapes."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reference: Reference

    def run(self, module: nn.Module) -> Any:
        """The module's outputs on the example."""
        was_training = module.training
        module.eval()
        try:
            return outputs_of(module, self.args, dict(self.kwargs))
        finally:
            module.train(was_training)

    def failure(self, module: nn.Module) -> str | None:
        """None if the module computes the reference's outputs, but for rounding; else what went wrong."""
        return next((failure for failure in self._failures(module) if failure is not None), None)

    def that(self, masked: nn.Module) -> Check:
        """With those trials alone that the masked model itself reproduces; unchanged where it fails on the example.

        A fresh mask may leave rows of attention without a key. What they are is no matter of the model, and where the
        graph has lost that attention nothing tells that they were there.
        """
        failures = list(self._failures(masked))
        trials = tuple(t for t, failed in zip(self.reference.trials, failures, strict=True) if failed is None)
        if not any(trial.draw.example for trial in trials):
            return self
        return replace(self, reference=replace(self.reference, trials=trials))

    def _failures(self, module: nn.Module) -> Iterator[str | None]:
        was_training = module.training
        module.eval()
        try:
            for trial in self.reference.trials:
                yield self._failure(module, trial)
        finally:
            module.train(was_training)

    def _failure(self, module: nn.Module, trial: Trial) -> str | None:
        try:
            actual = outputs_of(module, trial.args, trial.kwargs)
        except Exception as refusal:  # the forward is the user's: anything can come out of it
            # It may refuse by its own checks what the graph, which has lost them, accepts; never the example.
            return f"its forward fails: {type(refusal).__name__}: {refusal}" if trial.draw.example else None
        for sample, value, bounds in zip(trial.expected, actual, self.reference.bounds, strict=False):
            if sample.own.shape != value.shape:
                return f"its output has shape {tuple(value.shape)} instead of {tuple(sample.own.shape)}"
            if bounds is not None and value.numel():
                used, error = bounds.excess(sample, value)
                if not used <= 1:
                    return (
                        f"its output differs from the graph's by {error:.2e}, {used:.3g} times what rounding explains "
                        f"(inputs {trial.description})"
                    )
        return None


def example_check(small: fx.GraphModule) -> Check:
    """What a small graph makes of the example it was traced with, and of fresh inputs.

    Raises `ModuleViewError` for a graph whose outputs say nothing, such as infinite ones.
    """
    info = trace_info(small)
    try:
        return Check(info.args, info.kwargs, record_reference(small))
    except VerificationError as error:
        raise ModuleViewError(f"there is nothing to check a module against: {error}") from error
