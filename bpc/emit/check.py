"""Does the file compute what the graph computes? Run on ONNX Runtime against torch, on several shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import fx
from torch.utils import _pytree as pytree

from bpc.emit.axes import DynamicAxes, resized_inputs
from passes.ir.info import trace_info
from passes.verify.inputs import fresh_inputs
from passes.verify.run import outputs_of

# Largest difference allowed, relative to the outputs' size. int8's error is a property of the model and its
# calibration, so it is measured and reported; the bound only catches files that are plainly wrong. Half precision is
# checked before the conversion (see `export_onnx`).
TOLERANCE = {"float32": 2e-4, "bfloat16": 2e-4, "float16": 2e-4, "int8": 1.0}


class ExportError(RuntimeError):
    """The exported file is wrong or cannot be loaded; the message says where and what to try."""


@dataclass(frozen=True)
class FileAgreement:
    """Largest absolute difference between file and graph, the outputs' size, and the input shapes tried."""

    max_abs_diff: float
    scale: float
    shapes: tuple[str, ...]


def check_file(path: Path, graph: fx.GraphModule, axes: DynamicAxes, *, tolerance: float) -> FileAgreement:
    """Compare the file with ``graph`` on the example, on fresh inputs of other shapes, and on batch 1.

    ``tolerance`` bounds max |file − graph| / max(1, max |graph|). Raises `ExportError` over it, for outputs that are
    not finite where the graph's are, and where ONNX Runtime cannot load or run the file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot open the exported file: {error}") from error
    names = [value.name for value in session.get_inputs()]
    info = trace_info(graph)
    spec = pytree.tree_structure((info.args, info.kwargs))
    worst, scale, shapes = 0.0, 0.0, []
    for description, leaves in _cases(graph, axes):
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        try:
            expected = outputs_of(graph, args, kwargs)
        except (RuntimeError, IndexError):
            if description == "example":
                raise
            continue  # a shape the model itself refuses
        feed = {n: t.numpy() for n, t in zip(names, _tensors(leaves), strict=True)}
        try:
            actual = session.run(None, feed)
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot run the exported file on inputs {description}: {error}") from error
        for reference, value in zip(expected, actual, strict=True):
            difference, magnitude = _difference(reference.float().numpy(), np.asarray(value, np.float32))
            worst, scale = max(worst, difference), max(scale, magnitude)
            if not difference <= tolerance * max(1.0, magnitude):
                raise ExportError(
                    f"the exported file differs from the graph by {difference:.3e} (outputs up to {magnitude:.3g}) on "
                    f"inputs {description}, tolerance {tolerance:.1e}. Try recipe=bpc.emit.recipe.PLAIN, or "
                    f'dtype="float32"; if the plain file is right, please report the model.'
                )
        shapes.append(description)
    return FileAgreement(worst, scale, tuple(shapes))


def _cases(graph: fx.GraphModule, axes: DynamicAxes) -> Iterator[tuple[str, list[object]]]:
    info = trace_info(graph)
    leaves = pytree.tree_leaves((info.args, info.kwargs))
    for description, args, kwargs in fresh_inputs(graph):
        yield description, pytree.tree_leaves((args, kwargs))
    for sizes in ({"batch": 1}, {"batch": 1, "sequence": 1}):
        if set(sizes) <= set(axes.example):
            tensors = iter(resized_inputs(graph, axes, sizes))
            yield str(sizes), [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def _tensors(leaves: list[object]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _difference(expected: np.ndarray, actual: np.ndarray) -> tuple[float, float]:
    if expected.shape != actual.shape:
        raise ExportError(f"the exported file returns shape {actual.shape}, the graph {expected.shape}")
    if expected.size == 0:
        return 0.0, 0.0
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64)).max()
    return float(difference), float(np.abs(expected).max())
