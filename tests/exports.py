"""Exports that tests repeat: of one graph in many precisions, forms and files, torch exports the same model again.

That takes seconds each time, most of what these tests took. What is remembered is what `bpc.emit.onnx.export_onnx`
starts from, the exported program and the plain ONNX model; everything after that runs every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import fx
from torch.utils import _pytree as pytree

import bpc.emit.onnx
from bpc.emit.axes import DynamicAxes, Layout
from passes.ir.graph import get_attribute
from passes.ir.info import trace_info

KEPT = 6  # exports; programs hold their weights


@contextmanager
def remembered_exports() -> Iterator[None]:
    """`export_onnx` exports a graph anew only if the last few were others."""
    programs, models = Remembered(bpc.emit.onnx.exported_program), Remembered(bpc.emit.onnx.to_onnx)

    def exported_program(graph: fx.GraphModule) -> torch.export.ExportedProgram:
        program: torch.export.ExportedProgram = programs(content(graph), graph)
        return program

    def to_onnx(
        graph: fx.GraphModule,
        program: torch.export.ExportedProgram,
        axes: DynamicAxes,
        opset: int = bpc.emit.onnx.OPSET,
        layout: Layout | None = None,
    ) -> ir.Model:
        if layout is not None:
            return models.make(graph, program, axes, opset, layout)
        model: ir.Model = models((content(graph), repr(axes), opset), graph, program, axes, opset)
        return model.clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpc.emit.onnx, "exported_program", exported_program)
        patch.setattr(bpc.emit.onnx, "to_onnx", to_onnx)
        yield


class Remembered:
    """The last few results of a function, by a key."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make
        self.held: dict[Any, Any] = {}

    def __call__(self, key: Any, *given: Any) -> Any:
        result = self.held.pop(key) if key in self.held else self.make(*given)
        self.held[key] = result
        if len(self.held) > KEPT:
            del self.held[next(iter(self.held))]
        return result


def content(graph: fx.GraphModule) -> str:
    """A hash of all that an export of ``graph`` depends on: code, numbers, example, dynamic sizes, guards."""
    digest, info = hashlib.sha256(), trace_info(graph)

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            add((value.dtype, value.shape, value.stride(), value.requires_grad))
            digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    add((graph.code, graph.training, info.dynamic_shapes, info.guards, graph.graph._codegen.pytree_info))  # type: ignore[attr-defined]
    for target in sorted({str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}):
        add(target)
        add(get_attribute(graph, target))
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    for leaf in (spec, *leaves):
        add(leaf)
    return digest.hexdigest()
