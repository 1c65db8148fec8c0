"""node  ->  expand(c)        where every live channel of the node is the constant c

A sublayer of which nothing is left but a constant (all heads dead, all FFN dims dead) no longer runs.
Preconditions: true metadata (shapes). Postconditions: no floating-point value that depends on the inputs is constant.
Refusals: constants that are not finite; integer and bool values (they are sizes and masks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from passes.ir.graph import copy_graph, eliminate_dead_code, free_name, size_argument
from passes.ir.manager import Pass, PassResult
from passes.ir.sizes import shape_of, tensor_of

aten = torch.ops.aten


@dataclass(frozen=True)
class ReplaceConstants(Pass):
    name = "replace-constants"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        constants = Constants(result)
        replaced = _replace_constant_values(result, constants, Liveness(constants))
        if replaced:
            eliminate_dead_code(result)
            result = copy_graph(result)  # leaves behind the parameters nobody reads any more
        return PassResult(result, bool(replaced), {"constants": tuple(replaced)})


def _replace_constant_values(graph_module: fx.GraphModule, constants: Constants, liveness: Liveness) -> list[str]:
    """Put a constant in the place of every value whose live channels are all constant."""
    settled: dict[fx.Node, bool] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or node not in constants.from_inputs:
            continue
        if not get_dtype(node).is_floating_point:
            continue
        live = liveness.of(node)
        fact = constants.fact(node)
        settled[node] = bool(live.any()) and bool((fact.const | ~live).all()) and bool(torch.isfinite(fact.value).all())
    replaced: list[str] = []
    for node, is_settled in settled.items():
        if is_settled and not all(settled.get(user, False) for user in node.users):
            _replace(graph_module, node, constants, f"constant_{len(replaced)}")
            replaced.append(node.name)
    return replaced


def _replace(graph_module: fx.GraphModule, node: fx.Node, constants: Constants, name: str) -> None:
    value = _narrowed(constants.fact(node).value).clone().to(get_dtype(node))
    name = free_name(graph_module, name)
    graph_module.register_buffer(name, value.contiguous())
    graph = graph_module.graph
    with graph.inserting_before(node):
        source: Any = graph.get_attr(name)
        fake = tensor_of(node)
        assert fake is not None
        source.meta["val"] = fake.new_empty(tuple(value.shape))
        shape = shape_of(node)
        if tuple(value.shape) != shape:
            sizes = [size_argument(graph, s) for s in shape]
            source = graph.call_function(aten.expand.default, (source, sizes))
            source.meta["val"] = fake
    node.replace_all_uses_with(source)


def _narrowed(value: torch.Tensor) -> torch.Tensor:
    """One entry along every dim whose entries agree (fixed positions of an image, say): the graph expands it."""
    for dim in range(value.dim()):
        first = value.narrow(dim, 0, 1)
        if bool((value == first).all()):
            value = first
    return value


def get_dtype(node: fx.Node) -> torch.dtype:
    fake = tensor_of(node)
    assert fake is not None
    return fake.dtype
