"""Tracing: from an ``nn.Module`` to one functional ``fx.GraphModule`` of ATen operators.

`trace` is the front end of every pass. It wraps ``torch.export`` (non-strict, dynamic sizes) and then *prepares* the
graph: in-place operators become functional, asserts, guards, dropouts in eval mode and autocast/no-grad regions
disappear, tied parameters are named once. The parameters of the result are the model's own parameter objects.

Everything that touches torch.export's private corners lives in this file.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from passes.frontend.inputs import normalise_inputs, widen_unit_dims
from passes.frontend.prepare import prepare
from passes.ir.info import META_KEY, TraceError, TraceInfo, trace_info

aten = torch.ops.aten


def trace(model: nn.Module, example_inputs: Any = None, *, dynamic: bool = True) -> fx.GraphModule:
    """Trace ``model`` in eval mode into an ``fx.GraphModule`` of functional ATen operators.

    Parameters
    ----------
    model: any module ``torch.export`` can trace. Its training flag is restored afterwards.
    example_inputs: a dict of keyword arguments, a tuple of positional ones, one tensor, or None, in which case the
        model's own ``dummy_inputs`` (Hugging Face) are taken, with masks that hide nothing. A size of 1 in the batch
        (or sequence) dimension does not freeze it: the example is repeated.
    dynamic: trace every dimension the model does not constrain as dynamic (batch, sequence; of images and other
        inputs of rank 4 and more only the batch: channels, heights and widths are part of the architecture). False
        keeps the example's sizes.

    Returns the graph; its parameters *are* the model's (same objects, same names). Raises `TraceError`.
    """
    args, kwargs = normalise_inputs(model, example_inputs)
    if dynamic:
        args, kwargs = widen_unit_dims(args, kwargs)
    dynamic_shapes = _dynamic_shapes(model, args, kwargs) if dynamic else None
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        exported = _export(model, args, kwargs, dynamic_shapes)
    finally:
        for module, training in modes.items():
            module.training = training
    graph_module = prepare(exported, model)
    if dynamic:
        dynamic_shapes = _dynamic_shapes(model, args, kwargs, _dynamic_dims(graph_module, args, kwargs))
    graph_module.meta[META_KEY] = TraceInfo(args, kwargs, dynamic_shapes, _aliases(graph_module, model))
    return graph_module


def retrace(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Export a rewritten graph again, so that its node metadata (shapes, dtypes) is true. Parameters stay shared."""
    info = trace_info(graph_module)
    exported = _export(graph_module, info.args, info.kwargs, info.dynamic_shapes)
    result = prepare(exported, graph_module)
    result.meta[META_KEY] = info
    return result


def exported_program(graph_module: fx.GraphModule) -> torch.export.ExportedProgram:
    """A fresh ``ExportedProgram`` of a traced or rewritten graph, for ONNX, ``.pt2`` and AOTInductor."""
    info = trace_info(graph_module)
    return _export(graph_module, info.args, info.kwargs, info.dynamic_shapes)


def _dynamic_dims(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, list[int]]:
    """{id of an example tensor: its dims that the trace left dynamic}.

    The model's own checks (an image size, say) fixed the others and are gone from the graph: a second export must not
    make them dynamic again.
    """
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    values = [n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"]
    fakes = [value for value in values if isinstance(value, torch.Tensor)]
    return {
        id(tensor): [d for d, s in enumerate(fake.shape) if isinstance(s, torch.SymInt) and not s.node.expr.is_number]
        for tensor, fake in zip(tensors, fakes, strict=True)
    }


def _dynamic_shapes(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: Mapping[int, list[int]] | None = None
) -> dict[str, Any]:
    def spec_of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return None
        image = leaf.dim() >= 4 and leaf.is_floating_point()
        dynamic = (range(1) if image else range(leaf.dim())) if dims is None else dims[id(leaf)]
        return {d: Dim.AUTO if d in dynamic else Dim.STATIC for d in range(leaf.dim())}

    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    return {name: pytree.tree_map(spec_of, value) for name, value in bound.arguments.items()}


def _export(model: nn.Module, args: Any, kwargs: Any, dynamic_shapes: Any) -> torch.export.ExportedProgram:
    # Aliases: torch.export marks the tensors it is given as dynamic, and a later export would find the marks.
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda t: t.detach(), (args, kwargs))
    try:
        with torch.no_grad():
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise TraceError(_explain(model, error)) from error


def _explain(model: nn.Module, error: Exception) -> str:
    """Say which line of the model failed and what to try."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
    frames = [f for f in frames if f.filename != __file__]
    where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}: {frames[-1].line}" if frames else "?"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{type(model).__name__} cannot be traced: {type(error).__name__}: {first}\n"
        f"  at {where}\n"
        "  Data-dependent Python control flow (if/for on tensor values, .item()) cannot be traced: move it out of "
        "forward(), or replace it with torch.where. If an argument selects the branch (e.g. use_cache=False, "
        "return_dict=True), pass it in example_inputs. dynamic=False traces the example's sizes only."
    )


def _aliases(graph_module: fx.GraphModule, model: nn.Module) -> dict[str, str]:
    """{every parameter name of the model: the name the graph reads it under}."""
    used = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    by_identity: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_identity.setdefault(id(parameter), []).append(name)
    aliases = {}
    for names in by_identity.values():
        canonical = next((n for n in names if n in used), names[0])
        aliases.update(dict.fromkeys(names, canonical))
    return aliases
