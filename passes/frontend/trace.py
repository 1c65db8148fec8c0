"""Tracing: from an ``nn.Module`` to one functional ``fx.GraphModule`` of ATen operators.

`trace` is the front end of every pass. It wraps ``torch.export`` (non-strict, dynamic sizes; see `export`) and then
*prepares* the graph: in-place operators become functional, asserts, guards, dropouts in eval mode and autocast/no-grad
regions disappear, tied parameters are named once. The parameters of the result are the model's own parameter objects.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from passes.frontend.enforce import guarded, with_guard_nodes
from passes.frontend.export import dims_left_dynamic, dynamic_shapes, export, export_dynamic
from passes.frontend.guards import fixed_sizes, input_guards
from passes.frontend.inputs import normalise_inputs, widen_unit_dims
from passes.frontend.prepare import as_graph, prepare
from passes.frontend.reference import make_reference
from passes.frontend.run import in_eval_mode, own_copy
from passes.frontend.selfcheck import SelfCheck
from passes.ir.compact import expanded
from passes.ir.graph import prefix_attributes
from passes.ir.info import META_KEY, TraceInfo, trace_info
from passes.ir.session import exclusive
from passes.ir.unwrap import plain_forwards, unwrap


@exclusive
def trace(model: nn.Module, example_inputs: Any = None, *, dynamic: bool = True) -> fx.GraphModule:
    """Trace ``model`` in eval mode into an ``fx.GraphModule`` of functional ATen operators.

    Args:
        model: any module ``torch.export`` can trace, or DataParallel, torch.compile or accelerate around one. It is
            left as it is: training flags, hooks and buffers.
        example_inputs: a dict of keyword arguments, a tuple of positional ones, one tensor, or None, in which case the
            model's own ``dummy_inputs`` (Hugging Face) are taken, with masks that hide nothing. Whatever the forward
            takes may stand in it; what is no tensor is fixed by the trace. A size of 1 in the batch (or sequence)
            dimension does not freeze it: the example is repeated. It is copied, never written to.
        dynamic: trace every dimension the model does not constrain as dynamic (batch, sequence; of images and other
            inputs of rank 4 and more only the batch: channels, heights and widths are part of the architecture). False
            keeps the example's sizes.

    Returns the graph; its parameters *are* the model's (same objects, same names), but for compact layers
    (`passes.ir.compact`), which are traced as the plain ones that they stand for. It refuses inputs that the model
    would have treated otherwise than the example (`passes.ir.info.InputError`), and has been compared with the model on
    the example and on other sizes (but not on the meta device). Raises `TraceError`.
    """
    inner, prefix = unwrap(model)
    args, kwargs = normalise_inputs(inner, example_inputs)
    if dynamic:
        args, kwargs = widen_unit_dims(args, kwargs)
    args, kwargs = own_copy((args, kwargs))
    with in_eval_mode(inner), plain_forwards(inner), expanded(inner):
        exported = export_dynamic(inner, args, kwargs) if dynamic else export(inner, args, kwargs, None)
        plain = as_graph(exported, inner)
        reference = make_reference(plain)
        guards = input_guards(exported)
        graph_module = prepare(exported, inner, plain=plain)
        guards = tuple(dict.fromkeys((*guards, *fixed_sizes(graph_module))))
        guarded(graph_module, guards)
        special = SelfCheck(inner, exported, reference, graph_module, (args, kwargs)).run()
        shapes = dynamic_shapes(inner, args, kwargs, dims_left_dynamic(graph_module, args, kwargs)) if dynamic else None
    if special:
        guards = (*guards, *special)
        guarded(graph_module, guards)
    if prefix:
        names = {
            name
            for name, _ in (
                *inner.named_parameters(remove_duplicate=False),
                *inner.named_buffers(remove_duplicate=False),
            )
        }
        graph_module, reference = (prefix_attributes(g, prefix, names) for g in (graph_module, reference))
    graph_module.meta[META_KEY] = TraceInfo(
        args, kwargs, shapes, _aliases(graph_module, model), guards=guards, reference=reference
    )
    return graph_module


@exclusive
def retrace(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Export a rewritten graph again, so that its node metadata (shapes, dtypes) is true. Parameters stay shared."""
    info = trace_info(graph_module)
    exported = export(graph_module, info.args, info.kwargs, info.dynamic_shapes)
    result = prepare(exported, graph_module)
    guarded(result, info.guards)
    result.meta[META_KEY] = info
    return result


@exclusive
def exported_program(graph_module: fx.GraphModule) -> torch.export.ExportedProgram:
    """A fresh ``ExportedProgram`` of a traced or rewritten graph, for ONNX, ``.pt2`` and AOTInductor.

    What the graph requires of its inputs is in the program's own guards, as far as torch takes them for conditions on
    sizes: ``program.module()`` checks them.
    """
    info = trace_info(graph_module)
    return export(with_guard_nodes(graph_module, info.guards), info.args, info.kwargs, info.dynamic_shapes)


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
