"""The reference: what the user's module computes, before any of our own preparation.

`passes.trace` keeps torch.export's own module beside the graph (``trace_info(graph).reference``), sharing the model's
parameters. Whatever prepare, canonicalise and bake do wrong, they cannot do to it. To verify a small graph:

    reference = masked_reference(graph, masks)       # graph: as traced, or baked; masks: as checked against it
    small = shrink(graph, masks).graph_module
    reference(*args, **kwargs), small(*args, **kwargs)

It is a snapshot of the graph's parameters at the call; only masked ones are copied. A rewritten graph has no reference
but itself, and gets that.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from passes.frontend.bake import computed_weights
from passes.frontend.functional import writes_memory_of
from passes.ir.graph import copy_graph, get_attribute, set_attribute, set_numbers
from passes.ir.info import trace_info
from passes.ir.tensors import masked

aten = torch.ops.aten

_KEPT_META = ("val", "stack_trace")


def make_reference(plain: fx.GraphModule) -> fx.GraphModule:
    """torch.export's module as a plain graph (`as_graph`). Inputs and buffers that it writes to are cloned first."""
    reference = copy_graph(plain)
    for node in writes_memory_of(reference.graph):
        with reference.graph.inserting_after(node):
            clone = reference.graph.call_function(aten.clone.default, (node,))
        clone.meta = dict(node.meta)
        for user in [user for user in node.users if user is not clone]:
            user.replace_input_with(node, clone)
    for node in reference.graph.nodes:
        node.meta = {key: node.meta[key] for key in _KEPT_META if key in node.meta}
    reference.meta = {}
    reference.recompile()
    return reference


def masked_reference(graph_module: fx.GraphModule, masks: Mapping[str, torch.Tensor] | None = None) -> fx.GraphModule:
    """What the model computes with masked weights, from torch.export's own module.

    Args:
        graph_module: from `passes.trace`, before or after `BakeWeights`; its current parameters are read. A rewritten
            graph stands for itself.
        masks: {name that ``graph_module`` reads a parameter by: bool tensor of its shape}, True where an entry is kept.
            The name may be one that baking gives to a weight computed from others: then the computed weight is masked.

    Returns a graph module of the same signature, without input guards. Raises KeyError for a mask that fits nothing.
    """
    info = trace_info(graph_module)
    reference = copy_graph(graph_module if info.reference is None else info.reference)
    reference.meta = {}
    for name in _read(reference) & _read(graph_module) - set(info.baked):
        set_attribute(reference, name, get_attribute(graph_module, name))
    computed: dict[str, list[fx.Node]] = {}
    if not _read(reference).issuperset(masks or {}):
        for weight in computed_weights(reference):
            computed.setdefault(weight.name, []).append(weight.node)
    for name, mask in (masks or {}).items():
        if name in _read(reference):
            set_numbers(reference, name, masked(get_attribute(reference, name), mask))
        elif name in computed:
            for node in computed[name]:
                _mask_value(reference, node, mask, f"_mask_of.{name}")
        else:
            raise KeyError(f"mask for {name!r}: the model reads no parameter of that name, and computes none")
    reference.recompile()
    return reference


def _read(graph_module: fx.GraphModule) -> set[str]:
    return {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}


def _mask_value(reference: fx.GraphModule, node: fx.Node, mask: torch.Tensor, name: str) -> None:
    """node  ->  masked_fill(node, ~mask, 0)"""
    set_attribute(reference, name, ~mask)
    with reference.graph.inserting_after(node):
        hidden = reference.graph.get_attr(name)
    with reference.graph.inserting_after(hidden):
        masked = reference.graph.call_function(aten.masked_fill.Scalar, (node, hidden, 0))
    masked.meta = dict(node.meta)
    node.replace_all_uses_with(masked, delete_user_cb=lambda user: user is not masked)
