"""linear(x, f(W, mask))  ->  linear(x, W')        where W' = f(W, mask), a number like any other weight

torch.nn.utils.prune, parametrizations and masked layers compute a weight from parameters in every forward; the traced
graph shows the arithmetic. Baking it makes the zeros plain to every analysis.

Preconditions: eval mode (traced graphs are). Postconditions: weights and biases of linear and convolution nodes that
no input reaches are parameters, named as the module knows them: ``weight`` for prune's ``weight_orig`` and for a
parametrization's ``parametrizations.weight.original``. Refusals: weights that are only viewed, transposed or cast (tied
weights stay one), random operators, weights on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.ir.graph import copy_graph, eliminate_dead_code, get_attribute, set_attribute
from passes.ir.manager import Pass, PassResult
from passes.ir.sizes import is_parameter, tensor_inputs, tensor_of
from passes.ops.kinds import is_view

aten = torch.ops.aten

# Positions of weight and bias.
SLOTS: dict[Any, tuple[int, ...]] = {
    aten.linear.default: (1, 2),
    aten.addmm.default: (0, 2),
    aten.mm.default: (1,),
    aten.matmul.default: (1,),
    aten.conv1d.default: (1, 2),
    aten.conv2d.default: (1, 2),
}


@dataclass(frozen=True)
class BakeWeights(Pass):
    name = "bake-weights"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        if not list(_computed_weights(graph_module.graph)):
            return PassResult(graph_module, False, {"weights": ()})
        result = copy_graph(graph_module)
        named: dict[fx.Node, str] = {}
        for user, weight in list(_computed_weights(result.graph)):
            if weight not in named:
                named[weight] = _bake(result, weight)
            with result.graph.inserting_before(user):
                parameter = result.graph.get_attr(named[weight])
            parameter.meta["val"] = weight.meta["val"]
            user.replace_input_with(weight, parameter)
        eliminate_dead_code(result)
        info = result.meta
        result = copy_graph(result)  # leaves behind the originals and their masks
        result.meta = info
        return PassResult(result, True, {"weights": tuple(named.values())})


def _computed_weights(graph: fx.Graph) -> Iterable[tuple[fx.Node, fx.Node]]:
    """(linear or convolution, its computed weight or bias)."""
    for node in graph.nodes:
        for slot in SLOTS.get(node.target, ()) if node.op == "call_function" else ():
            weight = node.args[slot] if slot < len(node.args) else None
            if isinstance(weight, fx.Node) and _is_computed(weight):
                yield node, weight


def _is_computed(weight: fx.Node) -> bool:
    """Some arithmetic on parameters, and nothing else."""
    steps = _steps(weight)
    if steps is None or all(is_parameter(n) or is_view(n) for n in steps):
        return False
    return all(not is_parameter(n) or _device(n) != "meta" for n in steps)


def _device(node: fx.Node) -> str:
    value = tensor_of(node)
    return "meta" if value is None else value.device.type


def _steps(weight: fx.Node) -> set[fx.Node] | None:
    """The nodes behind a value; None if an input of the model, or chance, is one of them."""
    seen: set[fx.Node] = set()
    stack = [weight]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if is_parameter(node):
            continue
        if node.op != "call_function" or tensor_of(node) is None or not isinstance(node.target, torch._ops.OpOverload):
            return None
        if torch.Tag.nondeterministic_seeded in node.target.tags or set(tensor_inputs(node)) != set(
            node.all_input_nodes
        ):
            return None
        stack.extend(node.all_input_nodes)
    return seen


def _bake(graph_module: fx.GraphModule, weight: fx.Node) -> str:
    """Compute the weight and store it under its public name."""
    values: dict[fx.Node, torch.Tensor] = {}

    def value(node: fx.Node) -> torch.Tensor:
        if node not in values:
            if is_parameter(node):
                values[node] = get_attribute(graph_module, str(node.target)).detach()
            else:
                assert callable(node.target)
                values[node] = node.target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))
        return values[node]

    tensor = value(weight).contiguous()
    name = _public_name(graph_module, weight)
    set_attribute(graph_module, name, torch.nn.Parameter(tensor, requires_grad=False))
    return name


def _public_name(graph_module: fx.GraphModule, weight: fx.Node) -> str:
    """The attribute of the user's module that the weight is, in torch's own naming of originals."""
    steps = _steps(weight)
    assert steps is not None
    sources = [n for n in graph_module.graph.nodes if n in steps and is_parameter(n)]
    learned = [n for n in sources if isinstance(get_attribute(graph_module, str(n.target)), torch.nn.Parameter)]
    original = (learned or sources)[0]
    *path, leaf = str(original.target).split(".")
    if path[-2:-1] == ["parametrizations"]:
        return ".".join([*path[:-2], path[-1]])
    if leaf.endswith("_orig"):
        return ".".join([*path, leaf.removesuffix("_orig")])
    if all(user in steps for n in graph_module.graph.nodes if n.target == original.target for user in n.users):
        return str(original.target)  # a masked layer: nothing else reads the unmasked weight
    return f"{original.target}_computed"
