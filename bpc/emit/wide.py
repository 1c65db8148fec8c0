"""A half-precision graph in float32: the same weights, computed in the precision that files are checked in.

transformers loads a checkpoint in the dtype that it was saved in, often bfloat16, for which ONNX Runtime's CPU
provider has no products. What a file is written in is the export's affair, whatever the model is held in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from bpc.emit.check import ExportError
from passes.ir.graph import copy_graph, get_attribute, set_numbers
from passes.ir.info import META_KEY, trace_info
from passes.ir.metadata import propagate_metadata
from passes.verify.run import exact_run

_HALVES = (torch.float16, torch.bfloat16)
_EXACT, _BORROWED = 1e-6, 0.1  # of an output's scale; the second where an operator has no float64 kernel


def in_float32(graph_module: fx.GraphModule, *, check: bool = True) -> fx.GraphModule:
    """A copy that computes in float32 what the graph computes in half precision; the graph itself where nothing is.

    Float inputs and outputs become float32 as well. ``check``: run both in float64 on the example. Raises
    `bpc.emit.check.ExportError` where they differ: a model that reads the bits of a float, for instance.
    """
    if not any(
        _is_half(leaf) for node in graph_module.graph.nodes for leaf in pytree.tree_leaves(node.meta.get("val"))
    ):
        return graph_module
    result = copy_graph(graph_module)
    for name in {str(node.target) for node in result.graph.nodes if node.op == "get_attr"}:
        numbers = get_attribute(result, name)
        if _is_half(numbers):
            set_numbers(result, name, numbers.float())
    for node in result.graph.nodes:
        if node.op == "placeholder":
            node.meta["val"] = pytree.tree_map(_widened, node.meta["val"])
        node.args = fx.node.map_aggregate(node.args, _widened_dtype)
        node.kwargs = fx.node.map_aggregate(node.kwargs, _widened_dtype)
    info = trace_info(result)
    args, kwargs = pytree.tree_map(_widened, (info.args, info.kwargs))
    result.meta[META_KEY] = replace(info, args=args, kwargs=kwargs, reference=None)
    try:
        propagate_metadata(result)
    except Exception as error:  # of any operator that was told to read the bits of a half
        raise ExportError(_refusal(f"{type(error).__name__}: {error}")) from error
    result.recompile()
    if check:
        _compare(graph_module, result)
    return result


def _compare(half: fx.GraphModule, wide: fx.GraphModule) -> None:
    exact, other = (exact_run(g, pytree.tree_leaves((trace_info(g).args, trace_info(g).kwargs))) for g in (half, wide))
    allowed = _BORROWED if exact.borrowed or other.borrowed else _EXACT
    for want, got in zip(exact.outputs, other.outputs, strict=True):
        finite = want.isfinite()
        scale = float(want[finite].abs().max()) if bool(finite.any()) else 0.0
        difference = float((want - got)[finite].abs().max()) if bool(finite.any()) else 0.0
        if not difference <= allowed * scale:
            raise ExportError(_refusal(f"run in float64, outputs up to {scale:.3g} differ by {difference:.3g}"))


def _refusal(reason: str) -> str:
    return (
        f"the model is held in half precision, and computes something else in float32 ({reason}). Load it in float32 "
        "(from_pretrained(..., dtype=torch.float32)), shrink it and export that"
    )


def _is_half(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in _HALVES


def _widened(value: Any) -> Any:
    return value.to(torch.float32) if _is_half(value) else value


def _widened_dtype(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in _HALVES else value
