"""Errors of the front end: what failed, at which line of the model, and what to do about it."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import ConstraintViolationError, GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from passes.ir.info import TraceError

_OURS = str(Path(__file__).parents[1])


@contextlib.contextmanager
def explained(what: str, node: fx.Node | None = None) -> Iterator[None]:
    """Turn whatever is raised inside into a `TraceError` that says what was being done, and to which node."""
    try:
        yield
    except TraceError:
        raise
    except Exception as error:
        at = "" if node is None else f"\n  at {described(node)}"
        raise TraceError(f"the traced graph cannot be prepared: {what}: {first_line(error)}{at}") from error


def described(node: fx.Node) -> str:
    """A node with its operator and the model's line it comes from."""
    line = source_line(node)
    return f"{node.name} ({node.target})" + (f", {line}" if line else "")


def source_line(node: fx.Node) -> str:
    """The innermost line outside torch that made the node; "" if the trace kept none."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(.*)', node.meta.get("stack_trace") or "")
    outside = [f for f in frames if "/torch/" not in f[0] and not f[0].startswith(_OURS)]
    return "{}:{} in {}: {}".format(*outside[-1]) if outside else ""


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def export_error(model: nn.Module, error: Exception, args: Any, kwargs: Any, eager: Exception | None) -> TraceError:
    """Why ``torch.export`` stopped. ``eager``: what the model itself raises on the example, if it does."""
    name = type(model).__name__
    if eager is not None:
        given = ", ".join(
            f"{pytree.keystr(path)} {tuple(leaf.shape)} {leaf.dtype}".replace("torch.", "")
            for path, leaf in pytree.tree_leaves_with_path((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        )
        return TraceError(
            f"{name} cannot be traced: it does not run on the example inputs: {first_line(eager)}\n"
            f"  at {_where(eager)}\n"
            f"  Given: {given}. Pass example_inputs that the model itself accepts."
        )
    return TraceError(f"{name} cannot be traced: {first_line(error)}\n  at {_where(error)}\n  {_advice(error)}")


def _where(error: BaseException) -> str:
    """The innermost line outside torch and this package."""
    frames = [f for e in _chain(error) for f in traceback.extract_tb(e.__traceback__)]
    frames = [f for f in frames if "/torch/" not in f.filename and not f.filename.startswith(_OURS)]
    if not frames:
        return "a place in torch (no line of the model is on the way)"
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}: {frames[-1].line}"


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.insert(0, error)
        error = error.__cause__ or error.__context__
    return found


def _advice(error: Exception) -> str:
    if any(isinstance(e, ConstraintViolationError) for e in _chain(error)):
        return "The model does not hold for the sizes that were to be dynamic; dynamic=False traces the example's only."
    if any(isinstance(e, GuardOnDataDependentSymNode) for e in _chain(error)) or "data-dependent" in str(error).lower():
        return (
            "Data-dependent Python control flow (if/for on tensor values, .item()) cannot be traced: move it out of "
            "forward(), or replace it with torch.where. If an argument selects the branch (e.g. use_cache=False, "
            "return_dict=True), pass it in example_inputs."
        )
    if "Unsupported input type" in str(error):
        return (
            "An example input holds its tensors in a class that torch.export does not know. A cache of transformers: "
            "call transformers.exporters.exporter_dynamo.register_cache_pytrees_for_model(model) first; heads whose "
            "keys and values go in and come out all stay then. For ONNX files with the small model's own cache trace "
            "without one (use_cache=False), and export the small model with generation=True."
        )
    return (
        "The model runs on the example, but torch.export cannot follow it there: rewrite that line with plain tensor "
        "operators, or pass the argument that avoids it in example_inputs. dynamic=False traces its sizes only."
    )
