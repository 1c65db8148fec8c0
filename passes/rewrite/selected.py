"""index_select in front of a reader that keeps other indices than what it reads. Part of `shrink_dims`."""

from __future__ import annotations

import torch
from torch import fx

from passes.analysis.coupling.solver import Coupling
from passes.ir.graph import free_name, set_attribute
from passes.ir.sizes import shape_of, tensor_of
from passes.ops.facts import Axis, axis


def select(source: fx.Node, dim: int, positions: torch.Tensor, chosen: Axis, coupling: Coupling, name: str) -> fx.Node:
    """A node behind ``source`` that picks ``positions`` of a dim, which then keeps what the axis ``chosen`` keeps.

    As everywhere until the retrace its metadata has the sizes before the cut: rules that resize its readers ask for
    its shape and for what its dims keep.
    """
    graph, module = source.graph, source.graph.owning_module
    fake = tensor_of(source)
    assert module is not None
    assert fake is not None
    name = free_name(module, name)
    set_attribute(module, name, positions)
    with graph.inserting_after(source):
        index = graph.get_attr(name)
    with graph.inserting_after(index):
        result = graph.call_function(torch.ops.aten.index_select.default, (source, dim, index))
    sizes = list(fake.shape)
    sizes[dim] = coupling.ties.sizes[chosen]
    result.meta["val"] = fake.new_empty(sizes)
    for position in range(len(shape_of(source))):
        model, found = chosen if position == dim else axis(source, position), axis(result, position)
        if found is not None and model in coupling.class_of:
            coupling.class_of[found] = coupling.class_of[model]
    return result
