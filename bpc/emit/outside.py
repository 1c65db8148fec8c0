"""Inputs that the graph refuses, because the model treats them otherwise: does the file refuse them too?

ONNX has no assertion. Most files fail by themselves where the model does (a position past its table, a kernel longer
than its input); one that answers with what another branch of the model would have computed is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import fx
from torch.utils import _pytree as pytree

from bpc.emit.axes import DynamicAxes, resized_inputs
from passes.ir.info import Guard, trace_info

_LARGEST = 4096  # sizes above are not tried: the run would cost more than the export


def refused_cases(graph: fx.GraphModule, axes: DynamicAxes) -> Iterator[tuple[str, str, list[object]]]:
    """(axis, what the graph requires, flat inputs that break it), for each requirement that one axis alone can break.

    Left out are inputs which the operators of the graph refuse as well: no file need do more.
    """
    info = trace_info(graph)
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    broken: set[Guard] = set()
    for axis, example in axes.example.items():
        for size in _candidates(info.guards, example):
            tensors = iter(resized_inputs(graph, axes, {axis: size}))
            inputs = [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
            failing = [guard for guard in info.guards if not guard.holds(inputs)]
            if not failing or set(failing) <= broken:
                continue
            broken.update(failing)
            if _runs_without_guards(graph, *pytree.tree_unflatten(inputs, spec)):
                yield axis, f"{failing[0].message} (tried {axis} {size})", inputs


def _candidates(guards: tuple[Guard, ...], example: int) -> list[int]:
    """Sizes beside the example's, small ones, and those beside the numbers that the guards name."""
    named = {int(number) for guard in guards for number in re.findall(r"\d+", guard.condition)}
    near = {n + step for n in (example, *named) for step in (-1, 0, 1)}
    return sorted(size for size in near | set(range(1, 9)) if 1 <= size <= _LARGEST and size != example)


def _runs_without_guards(graph: fx.GraphModule, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Nodes alone, without the lines of ``forward`` that hold the guards."""
    flat = pytree.tree_leaves((args, kwargs))
    try:
        with torch.no_grad():
            fx.Interpreter(graph).run(*flat, enable_io_processing=False)
    except Exception:
        return False
    return True
