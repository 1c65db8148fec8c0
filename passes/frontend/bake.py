"""linear(x, f(W, mask))  ->  linear(x, W')        where W' = f(W, mask), a number like any other weight

torch.nn.utils.prune, parametrizations, adapters and masked layers compute a weight from parameters in every forward;
the traced graph shows the arithmetic. Baking it makes the zeros plain to every analysis.

Preconditions: eval mode (traced graphs are). Postconditions: what an operator reads as its weight, its bias or a factor
of a matrix product, and no input reaches, is a parameter; views after the arithmetic stay. It is named as the module
knows it: ``weight`` for prune's ``weight_orig``, for a parametrization's ``parametrizations.weight.original`` and for a
layer that masks its own weight; ``weight_computed`` where masking the parameter is not masking what is computed from
it. Two weights stay two. Refusals: weights that are only viewed, transposed or cast (tied weights stay one), matrices
made of no parameter, random operators, weights on the meta device.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from passes.ir.graph import copy_graph, eliminate_dead_code, get_attribute, set_numbers
from passes.ir.info import META_KEY, trace_info
from passes.ir.manager import Pass, PassResult
from passes.ir.sizes import is_parameter, tensor_of
from passes.ops.pointwise import is_pointwise
from passes.ops.rule import Kind
from passes.ops.table import kind_of

aten = torch.ops.aten

_SUFFIX = "_computed"

# Operators whose factors are weights where no input reaches them; others say "weight" and "bias" in their schema.
_PRODUCTS = frozenset(
    {
        aten.mm.default,
        aten.matmul.default,
        aten.addmm.default,
        aten.bmm.default,
        aten.baddbmm.default,
        aten.einsum.default,
    }
)


@dataclass(frozen=True)
class Computed:
    """A value computed from parameters alone that serves as a weight, and the name it has in the user's module."""

    node: fx.Node
    name: str


@dataclass(frozen=True)
class BakeWeights(Pass):
    name = "bake-weights"
    keeps_reference = True

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        if not computed_weights(graph_module):
            return PassResult(graph_module, False, {"weights": ()})
        result = copy_graph(graph_module)
        weights = computed_weights(result)
        values = {weight.node: _evaluate(result, weight.node) for weight in weights}  # before a name is taken
        for weight in weights:
            set_numbers(result, weight.name, values[weight.node])
            with result.graph.inserting_after(weight.node):
                parameter = result.graph.get_attr(weight.name)
            parameter.meta["val"] = weight.node.meta["val"]
            weight.node.replace_all_uses_with(parameter)
        eliminate_dead_code(result)
        names = tuple(dict.fromkeys(weight.name for weight in weights))
        info = trace_info(result)
        result = copy_graph(result)  # leaves behind the originals and their masks
        result.meta[META_KEY] = replace(info, baked=(*info.baked, *names))
        return PassResult(result, True, {"weights": names})


def computed_weights(graph_module: fx.GraphModule) -> list[Computed]:
    """Every computed weight of a graph. Nodes that compute the same have the same name, and no others do."""
    operands = [o for node in graph_module.graph.nodes if node.op == "call_function" for o in _weight_operands(node)]
    found = dict.fromkeys(weight for operand in operands if (weight := _arithmetic(operand)) is not None)
    if not found:
        return []
    numbers = _numbered(graph_module.graph)
    groups: dict[int, list[fx.Node]] = {}
    for weight in found:
        groups.setdefault(numbers[weight], []).append(weight)
    claims = {number: _public_name(graph_module, nodes) for number, nodes in groups.items()}
    shared = {name for name, count in Counter(claims.values()).items() if count > 1}
    taken = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"} | shared
    names: dict[int, str] = {}
    for number, claim in claims.items():
        own = claim not in shared and (claim not in taken or claim in _replaced(groups[number]))
        names[number] = claim if own else _free(claim.removesuffix(_SUFFIX) + _SUFFIX, taken)
        taken.add(names[number])
    return [Computed(node, names[number]) for number, nodes in groups.items() for node in nodes]


def _free(name: str, taken: set[str]) -> str:
    return next(n for n in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if n not in taken)


def _weight_operands(node: fx.Node) -> Iterable[fx.Node]:
    """What the operator reads as weight, bias or factor."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    for position, argument in enumerate(node.target._schema.arguments):
        value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        if node.target in _PRODUCTS or argument.name in ("weight", "bias"):
            yield from (v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, fx.Node))


def _arithmetic(operand: fx.Node) -> fx.Node | None:
    """The last step of the arithmetic on parameters behind an operand, without the views after it; None without any."""
    while (
        kind_of(operand) is Kind.VIEW and len(operand.all_input_nodes) == 1 and operand.target is not operator.getitem
    ):
        operand = operand.all_input_nodes[0]
    steps = _steps(operand)
    if steps is None or all(is_parameter(n) or kind_of(n) is Kind.VIEW for n in steps):
        return None
    sources = [n for n in steps if is_parameter(n)]
    return operand if sources and all(_device(n) != "meta" for n in sources) else None


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
        known = isinstance(node.target, torch._ops.OpOverload) or node.target is operator.getitem
        if node.op != "call_function" or not known:
            return None
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return None
        stack.extend(node.all_input_nodes)
    return seen


def _numbered(graph: fx.Graph) -> dict[fx.Node, int]:
    """Nodes that apply one operator to equal arguments have one number."""
    numbers: dict[Any, int] = {}
    of: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            arguments = fx.map_arg((node.args, node.kwargs), lambda n: f"%{of[n]}")
            key = (node.target, repr(arguments))
        else:
            key = (node.op, str(node.target))
        of[node] = numbers.setdefault(key, len(numbers))
    return of


def _evaluate(
    graph_module: fx.GraphModule, weight: fx.Node, given: Mapping[fx.Node, torch.Tensor] | None = None
) -> torch.Tensor:
    values: dict[fx.Node, Any] = dict(given or {})

    def value(node: fx.Node) -> Any:
        if node not in values:
            if is_parameter(node):
                values[node] = get_attribute(graph_module, str(node.target)).detach()
            else:
                assert callable(node.target)
                values[node] = node.target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))
        return values[node]

    tensor: torch.Tensor = value(weight)
    return tensor.contiguous()


def _public_name(graph_module: fx.GraphModule, weights: list[fx.Node]) -> str:
    """The attribute of the user's module that the weight is, in torch's own naming of originals."""
    original = _original(graph_module, weights[0])
    *path, leaf = str(original.target).split(".")
    if path[-2:-1] == ["parametrizations"]:
        return ".".join([*path[:-2], path[-1]])
    if leaf.endswith("_orig"):
        return ".".join([*path, leaf.removesuffix("_orig")])
    if str(original.target) in _replaced(weights) and _masks_through(graph_module, weights[0], original):
        return str(original.target)
    return f"{original.target}{_SUFFIX}"


def _original(graph_module: fx.GraphModule, weight: fx.Node) -> fx.Node:
    steps = _steps(weight)
    assert steps is not None
    sources = [n for n in graph_module.graph.nodes if n in steps and is_parameter(n)]
    learned = [n for n in sources if isinstance(get_attribute(graph_module, str(n.target)), torch.nn.Parameter)]
    shaped = [n for n in learned if _shape(n) == _shape(weight)]  # an adapter's base weight, not its factors
    return (shaped or learned or sources)[0]


def _replaced(weights: list[fx.Node]) -> set[str]:
    """Parameters that nothing but these (equal) weights reads: once they are numbers, the names are free."""
    within: set[fx.Node] = set().union(*(_steps(weight) or () for weight in weights))
    return {
        str(n.target)
        for n in within
        if is_parameter(n)
        and all(user in within for other in n.graph.nodes if other.target == n.target for user in other.users)
    }


def _masks_through(graph_module: fx.GraphModule, weight: fx.Node, original: fx.Node) -> bool:
    """Zeroing entries of the parameter zeroes those of the weight and changes no others."""
    steps = _steps(weight) or set()
    path = {original}
    for node in weight.graph.nodes:
        if node in steps and path & set(node.all_input_nodes):
            if not is_pointwise(node) or _shape(node) != _shape(original):
                return False
            path.add(node)
    zeros = torch.zeros_like(get_attribute(graph_module, str(original.target)))
    return bool((_evaluate(graph_module, weight, {original: zeros}) == 0).all())


def _shape(node: fx.Node) -> tuple[Any, ...]:
    value = tensor_of(node)
    return () if value is None else tuple(value.shape)
