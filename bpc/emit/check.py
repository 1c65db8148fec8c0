"""Does the file compute what the graph computes? Run on ONNX Runtime against torch, on several shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from bpc.emit.axes import DynamicAxes, resized_inputs
from bpc.emit.likeness import Likeness, Tolerance
from bpc.emit.outside import refused_cases
from bpc.runtimes import onnxruntime
from passes.ir.info import trace_info
from passes.verify.inputs import fresh_inputs
from passes.verify.run import outputs_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# What each arithmetic costs, with room: 8-bit products some hundredths per layer of a channel's spread, half precision
# some thousandths (bfloat16: hundredths). Zeros, constants, permuted rows and wrong signs cost 1 and more.
TOLERANCE = {
    "float32": Tolerance(2e-4, 0.01),
    "float16": Tolerance(0.1, 0.1),
    "bfloat16": Tolerance(0.3, 0.3),
    "int8": Tolerance(1.0, 0.8),
}


class ExportError(RuntimeError):
    """The exported file is wrong or cannot be loaded; the message says where and what to try."""


@dataclass(frozen=True)
class FileAgreement:
    """Largest absolute difference between file and graph, the outputs' size, and the input shapes tried.

    The graph is the model's own, whatever the file stores its tables in. ``share``: largest error of an output channel
    over its spread (`bpc.emit.likeness`). ``fixed``: dynamic axes at which no size but the example's is right, or not
    every size that the file would answer; with the reason.
    """

    max_abs_diff: float
    scale: float
    shapes: tuple[str, ...]
    share: float = 0.0
    fixed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Case:
    """Inputs to try, flat. ``changed``: the axes whose size is not the example's. ``group``: one of them is enough."""

    description: str
    leaves: list[object]
    changed: frozenset[str]
    group: str = ""


def open_session(path: Path) -> InferenceSession:
    """The file on ONNX Runtime's CPU provider. Raises `ExportError` where it cannot be opened."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot open the file: {error}") from error


def check_file(
    path: Path,
    graph: fx.GraphModule,
    axes: DynamicAxes,
    *,
    tolerance: Tolerance,
    stored: fx.GraphModule | None = None,
    cases: Sequence[tuple[str, list[object]]] | None = None,
) -> FileAgreement:
    """Compare the file with ``graph`` on the example, far from it along each dynamic axis, and on fresh inputs.

    ``cases``: (description, flat inputs) instead of these; the file has to be right on every one of them.
    ``stored``: the graph with the tables that the file holds, where they are rounded. The file is then judged by what
    this graph computes, so that rounding hides no error; how far it is from ``graph`` is reported all the same.
    Raises `ExportError` over ``tolerance``, for outputs that are not finite where the graph's are, and where ONNX
    Runtime cannot load or run the file; a file wrong only at other sizes of an axis is right with that axis `fixed`.
    """
    session = open_session(path)
    info = trace_info(graph)
    spec = pytree.tree_structure((info.args, info.kwargs))
    judged: list[Likeness] = []
    reported: list[Likeness] = []
    shapes: list[str] = []
    failures: list[tuple[_Case, str]] = []
    moved: set[str] = set()
    done: set[str] = set()
    given = None if cases is None else (_Case(name, leaves, frozenset()) for name, leaves in cases)
    for case in _cases(graph, axes) if given is None else given:
        if case.group and case.group in done:
            continue
        args, kwargs = pytree.tree_unflatten(case.leaves, spec)
        try:
            expected = outputs_of(graph, args, kwargs)
            right = expected if stored is None else outputs_of(stored, args, kwargs)
        except Exception:
            if not case.changed:
                raise
            continue  # a shape the model itself refuses
        done.add(case.group)
        judged = judged or [Likeness() for _ in right]
        reported = judged if stored is None else reported or [Likeness() for _ in expected]
        actual, problem = _run(session, case)
        problem = problem or _problem(case, right, actual, judged, tolerance)
        if problem and not case.changed:
            raise ExportError(problem)
        if problem:
            failures.append((case, problem))
            continue
        if stored is not None:
            for output, reference, value in zip(reported, expected, actual, strict=True):
                output.add(reference.float().numpy(), value.astype(np.float32))
        shapes.append(case.description)
        moved |= case.changed
    fixed: dict[str, str] = {}
    if given is None:
        untried = {axis: size for axis, size in axes.example.items() if axis not in moved}
        fixed = {axis: f"no size but {size} could be tried" for axis, size in untried.items()}
    for case, problem in sorted(failures, key=lambda failure: len(failure[0].changed)):
        if len(case.changed) == 1:
            fixed[next(iter(case.changed))] = problem
        elif not case.changed & set(fixed):
            raise ExportError(problem)
    for axis, required, leaves in refused_cases(graph, axes) if given is None else ():
        if axis not in fixed and _answers(session, leaves):
            fixed[axis] = f"{required}; beyond that the file would answer otherwise than the model does"
    share = max((output.share for output in judged), default=0.0)
    if not share <= tolerance.share:
        raise ExportError(
            f"the exported file's outputs are off by {share:.2g} of what they vary by (allowed {tolerance.share:g}; a "
            f"file of zeros is off by 1) over {len(shapes)} inputs. {_ADVICE}"
        )
    numbers = (max((getattr(o, name) for o in reported), default=0.0) for name in ("largest", "scale", "share"))
    largest, scale, share = numbers
    return FileAgreement(largest, scale, tuple(shapes), share, fixed)


_ADVICE = 'Try recipe=bpc.emit.recipe.PLAIN, or dtype="float32"; if the plain file is right, please report the model.'


def _run(session: InferenceSession, case: _Case) -> tuple[list[np.ndarray], str]:
    """What the file returns, and why it does not run ("" where it does)."""
    try:
        return [np.asarray(value) for value in session.run(None, _feed(session, case.leaves))], ""
    except Exception as error:
        return [], f"ONNX Runtime cannot run the exported file on inputs {case.description}: {error}"


def _problem(
    case: _Case, expected: list[torch.Tensor], actual: list[np.ndarray], outputs: list[Likeness], tolerance: Tolerance
) -> str:
    """What is wrong with the file on these inputs; "" if nothing is."""
    shapes = [tuple(t.shape) for t in expected]
    if shapes != [a.shape for a in actual]:
        return f"on inputs {case.description} the file returns {[a.shape for a in actual]}, the graph {shapes}"
    for reference, value, output in zip(expected, actual, outputs, strict=True):
        single = Likeness()
        difference = single.add(reference.float().numpy(), value.astype(np.float32))
        # Rounding goes with what the layers say: a classifier in doubt has small outputs, and no smaller errors.
        scale = max(single.scale, output.scale)
        if not difference <= tolerance.largest * max(1.0, scale):
            return (
                f"the exported file differs from the graph by {difference:.3e} (outputs up to {scale:.3g}) on "
                f"inputs {case.description}, tolerance {tolerance.largest:.1e}. {_ADVICE}"
            )
        output.add(reference.float().numpy(), value.astype(np.float32))
    return ""


def _answers(session: InferenceSession, leaves: list[object]) -> bool:
    """Whether the file runs on flat inputs; anything that ONNX Runtime raises is a refusal."""
    try:
        session.run(None, _feed(session, leaves))
    except Exception:
        return False
    return True


def _feed(session: InferenceSession, leaves: list[object]) -> dict[str, np.ndarray]:
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return {value.name: t.numpy() for value, t in zip(session.get_inputs(), tensors, strict=True)}


def _cases(graph: fx.GraphModule, axes: DynamicAxes) -> Iterator[_Case]:
    """The example; each axis alone much larger and much smaller; what verification draws; a single token."""
    info = trace_info(graph)
    leaves = pytree.tree_leaves((info.args, info.kwargs))

    def resized(sizes: Mapping[str, int], group: str = "") -> _Case:
        tensors = iter(resized_inputs(graph, axes, sizes))
        filled = [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        return _case(", ".join(f"{axis} {size}" for axis, size in sizes.items()), filled, axes, group)

    yield _Case("example", leaves, frozenset())
    for axis, size in axes.example.items():
        for other in (4 * size + 1, 2 * size, size + 1):
            yield resized({axis: other}, f"larger {axis}")
        for other in (size // 3, size - 1):
            if other > 0:
                yield resized({axis: other}, f"smaller {axis}")
    drawn = fresh_inputs(graph)
    next(drawn)  # the example
    for description, args, kwargs in drawn:
        yield _case(description, pytree.tree_leaves((args, kwargs)), axes)
    if {"batch", "sequence"} <= set(axes.example):
        yield resized({"batch": 1, "sequence": 1})


def _case(description: str, leaves: list[object], axes: DynamicAxes, group: str = "") -> _Case:
    sizes = {
        (name, leaf.shape[axis])
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, torch.Tensor)
        for axis, name in axes.names.get(index, {}).items()
    }
    return _Case(description, leaves, frozenset(name for name, size in sizes if size != axes.example[name]), group)
