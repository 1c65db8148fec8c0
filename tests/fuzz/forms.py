"""One case: a program under masks in all its forms, which must agree.

eager masked · traced graph under the masks · small graph · small module · file on ONNX Runtime

What counts as agreement is measured, not fixed: the eager model with its weights moved by their own rounding shows how
far rounding alone goes (comparisons and roundings can turn on it), and inputs where that is far say nothing.
"""

from __future__ import annotations

import copy
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import passes
from passes.ir.info import InputError
from passes.ir.manager import PassError, PassManager
from passes.masks import resolve_masks
from passes.plan.errors import ModuleViewError
from passes.rewrite.apply_masks import ApplyMasks
from passes.verify.errors import NotFiniteError
from tests.fuzz.program import Program, build, inputs

Masks = Mapping[str, torch.Tensor]
SHAPES = ((3, 5), (2, 4), (1, 7), (4, 2))
REFUSALS = (passes.TraceError, passes.MaskError, NotFiniteError)
EXACT = 1e-9  # of an output's scale: far above the rounding of tens of float64 operations


@dataclass(frozen=True)
class Outcome:
    """kind: ok · refused · unstable (says nothing: not finite, or turned by rounding) · foreign (an exception that is
    not the project's) · fault (one that the manager wrapped) · WRONG · doubted (a verification error where eager and
    small agree). ``form``: where; ``detail``: what."""

    kind: str
    form: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()  # milder outcomes of single forms: a module or file refused
    shrunk: bool = False

    @property
    def failed(self) -> bool:
        return self.kind in ("foreign", "fault", "WRONG", "doubted")

    @property
    def signature(self) -> tuple[str, str, str]:
        """What stays the same while a failing case is made smaller."""
        return self.kind, self.form, self.detail.split("\n")[0] if self.kind in ("foreign", "fault") else ""


@dataclass(frozen=True)
class Trial:
    """Inputs, what the masked eager model makes of them, and by how much rounding moves each output."""

    inputs: tuple[torch.Tensor, ...]
    expected: tuple[torch.Tensor, ...]
    allowed: tuple[float, ...]

    def difference(self, outputs: Any, factor: float = 1.0) -> str | None:
        """What differs by more than is allowed; None if nothing does."""
        actual = as_tuple(outputs)
        if len(actual) != len(self.expected):
            return f"{len(self.expected)} outputs became {len(actual)}"
        for position, (want, got, allowed) in enumerate(zip(self.expected, actual, self.allowed, strict=True)):
            if want.shape != got.shape:
                return f"output {position}: shape {tuple(want.shape)} became {tuple(got.shape)}"
            if want.numel() == 0:
                continue
            difference = float((want.double() - got.double()).abs().max())
            if not difference <= factor * allowed:
                return f"output {position} differs by {difference:.1e} of {float(want.double().abs().max()):.1e}"
        return None


@dataclass
class Case:
    """A program, its masks, and what to try."""

    program: Program
    masks: Masks
    zeros: bool = False  # the masks are zeros in the weights, and shrink is given none
    verify: bool = False
    onnx: bool = False
    coarse: float = 0.0
    random: bool = False


def as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def masked_copy(model: nn.Module, masks: Masks) -> nn.Module:
    """The eager model with masked weights: the reference, which no pass has touched."""
    result = copy.deepcopy(model)
    named = dict(result.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            if name in named:  # tied weights are masked once
                named[name].mul_(mask)
    return result


def moved_copy(model: nn.Module, seed: int, size: float) -> nn.Module:
    """The model with every number moved by rounding, zeros excepted."""
    result = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in result.parameters():
            p.mul_(1 + size * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return result


def run(module: Callable[..., Any], given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Outputs on copies of the inputs, with random numbers that start the same every time."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        return tuple(t.clone() for t in as_tuple(module(*(t.clone() for t in given))))


def record(model: nn.Module, coarse: float = 0.0, shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[Trial]:
    """The reference on several shapes; inputs on which rounding alone moves it far are left out."""
    moved = [moved_copy(model, seed, 1e-13) for seed in range(2)]
    trials = []
    for seed, (batch, length) in enumerate(shapes):
        given = inputs(seed, batch, length)
        expected = run(model, given)
        if not all(bool(torch.isfinite(t.double()).all()) for t in expected):
            continue
        nearby = tuple(
            t * (1 + 1e-13 * torch.randn(t.shape, dtype=t.dtype)) if t.is_floating_point() else t for t in given
        )
        others = [run(other, given) for other in moved] + [run(model, nearby)]
        allowed = []
        for position, want in enumerate(expected):
            scale = float(want.double().abs().max()) if want.numel() else 0.0
            floor = max(_distance(want, other[position]) for other in others)
            if floor > max(1e-6, 10 * coarse) * max(scale, 1e-30) and floor > 1e-12:
                break
            allowed.append(1000 * floor + (EXACT + 20 * coarse) * max(scale, 1e-3))
        else:
            trials.append(Trial(given, expected, tuple(allowed)))
    return trials


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


def where_raised(error: BaseException) -> str:
    """The project's innermost line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/passes/" in f.filename or "/bpc/" in f.filename]
    if not frames:
        return "outside the project"
    file = frames[-1].filename
    return f"{file[max(file.rfind('/passes/'), file.rfind('/bpc/')) + 1 :]} {frames[-1].name}"


def raised(form: str, error: BaseException) -> Outcome:
    """An exception that is no refusal. What the manager wrapped is told by its cause."""
    cause = error.__cause__ if isinstance(error, PassError) and error.__cause__ is not None else error
    kind = "fault" if isinstance(error, PassError) else "foreign"
    return Outcome(kind, form, f"{type(cause).__name__} at {where_raised(cause)}\n{error}")


def given_model(case: Case) -> nn.Module:
    """The model that is traced: with zeros in its weights if they are to be read there."""
    model = build(case.program)
    return masked_copy(model, case.masks) if case.zeros else model


def example_of(case: Case) -> tuple[torch.Tensor, ...]:
    return inputs(0, *SHAPES[0])


def judge(case: Case) -> Outcome:
    """Run the case; the first form that fails decides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _judge(case)


def _judge(case: Case) -> Outcome:
    model = build(case.program)
    reference = masked_copy(model, case.masks)
    try:
        trials = record(reference, case.coarse)
    except Exception as error:  # a program that torch itself cannot run is no case
        return Outcome("unstable", "eager", f"{type(error).__name__}: {error}")
    if not trials:
        return Outcome("unstable", "eager", "not finite, or rounding decides")
    given = given_model(case)
    try:
        graph = passes.trace(given, example_of(case))
    except REFUSALS as error:
        return Outcome("refused", "trace", str(error))
    except Exception as error:
        return raised("trace", error)
    masks: Masks | None = None if case.zeros else readable(graph, case.masks)
    notes: list[str] = []
    failed = _graph_masked(graph, masks, trials, notes)
    if failed is not None:
        return failed
    try:
        result = passes.shrink(graph, masks, verify=False)
    except REFUSALS as error:
        return Outcome("refused", "shrink", str(error))
    except Exception as error:
        return raised("shrink", error)
    failed = _agrees(result.graph_module, trials, "small graph", notes)
    if failed is not None:
        return failed
    shrunk = result.report.parameters_after < result.report.parameters_before
    if case.verify:
        failed = _verifies(graph, masks)
        if failed is not None:
            return failed
    failed = _module(result.plan, given, masks, trials, notes)
    if failed is None and case.onnx:
        failed = _onnx(case, masks, notes)
    return failed or Outcome("ok", notes=tuple(notes), shrunk=shrunk)


def readable(graph: Any, masks: Masks) -> Masks:
    """The masks of the parameters that the graph reads."""
    from passes.masks.check import parameter_shapes

    known = parameter_shapes(graph)
    return {n: m for n, m in masks.items() if n in known}


def _agrees(
    module: Callable[..., Any], trials: list[Trial], form: str, notes: list[str], factor: float = 1.0
) -> Outcome | None:
    for trial in trials:
        sizes = "x".join(map(str, trial.inputs[0].shape[:2]))
        try:
            outputs = run(module, trial.inputs)
        except InputError:
            notes.append(f"{form}: refuses other sizes")  # torch.export fixed one, and the graph says so
            continue
        except Exception as error:
            return Outcome("WRONG", form, f"does not run on {sizes}: {type(error).__name__}: {error}")
        difference = trial.difference(outputs, factor)
        if difference is not None:
            return Outcome("WRONG", form, f"{difference} on {sizes}")
    return None


def _graph_masked(graph: Any, masks: Masks | None, trials: list[Trial], notes: list[str]) -> Outcome | None:
    try:
        resolved = resolve_masks(graph, masks)
        masked = PassManager((ApplyMasks(resolved),)).run(graph).graph_module
    except REFUSALS as error:
        return Outcome("refused", "masks", str(error))
    except Exception as error:
        return raised("masks", error)
    return _agrees(masked, trials, "graph masked", notes)


def _verifies(graph: Any, masks: Masks | None) -> Outcome | None:
    try:
        passes.shrink(graph, masks, verify=True)
    except NotFiniteError as error:
        return Outcome("refused", "verify", str(error))
    except passes.VerificationError as error:
        return Outcome("doubted", "verify", str(error))
    except Exception as error:
        return raised("verify", error)
    return None


def _module(plan: Any, model: nn.Module, masks: Masks | None, trials: list[Trial], notes: list[str]) -> Outcome | None:
    try:
        small = plan.apply_to(model, masks)
    except ModuleViewError:
        notes.append("module: refused")
        return None
    except Exception as error:
        return raised("small module", error)
    return _agrees(small, trials, "small module", notes)


def _onnx(case: Case, masks: Masks | None, notes: list[str]) -> Outcome | None:
    """The file of the float32 small graph against the float64 reference, within what float32 eager loses."""
    import onnxruntime

    from bpc.emit.check import ExportError
    from bpc.emit.onnx import export_onnx

    reference = masked_copy(build(case.program), case.masks)
    single = copy.deepcopy(reference).float()
    trials = []
    for trial in record(reference, case.coarse):
        floats = tuple(t.float() if t.is_floating_point() else t for t in trial.inputs)
        try:
            floor = [_distance(a, b) for a, b in zip(trial.expected, run(single, floats), strict=True)]
        except Exception:
            notes.append("onnx: not float32")
            return None
        scales = [max(float(t.double().abs().max()), 1e-3) if t.numel() else 1.0 for t in trial.expected]
        if any(f > 1e-3 * s for f, s in zip(floor, scales, strict=True)):
            continue
        trials.append(
            Trial(floats, trial.expected, tuple(100 * f + 1e-5 * s for f, s in zip(floor, scales, strict=True)))
        )
    example = tuple(t.float() if t.is_floating_point() else t for t in inputs(0, 3, 5))
    with tempfile.TemporaryDirectory() as folder:
        try:
            small = passes.shrink(passes.trace(single, example), verify=False)
            written = export_onnx(small, Path(folder) / "model.onnx")
        except (*REFUSALS, ExportError, ValueError) as error:
            notes.append(f"onnx: refused ({type(error).__name__})")
            return None
        except Exception as error:
            return raised("onnx", error)
        session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
        static = written.agreement.fixed if written.agreement is not None else {}
        names = [i.name for i in session.get_inputs()]

        def call(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            named = dict(zip(("x", "ids", "visible"), given, strict=True))
            feed = {n: named[n].numpy() for n in names}
            try:
                return tuple(torch.from_numpy(a) for a in session.run(None, feed))
            except Exception as error:
                if "Got invalid dimensions" in str(error):
                    if static:
                        raise InputError("an axis of the file is static") from error
                    run(small.graph_module, given)  # InputError, where torch.export fixed the size in the graph too
                raise

        return _agrees(call, trials, "onnx", notes)
