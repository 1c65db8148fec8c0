"""Helpers for writing to traced graphs: dotted attributes, copies, dead code, run-time sizes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import OptimizedPythonReferenceAnalysis

aten = torch.ops.aten

_WORTH_COLLECTING = 2**27  # bytes

ASSERTS = frozenset(
    {
        aten._assert_tensor_metadata.default,
        aten._assert_scalar.default,
        aten._assert_async.msg,
        aten.sym_constrain_range_for_size.default,
        aten.sym_constrain_range.default,
    }
)


def eliminate_dead_code(graph_module: fx.GraphModule) -> bool:
    """Remove nodes nobody reads; attention and random operators too, whose results matter only when used."""
    erased = False
    for node in reversed(list(graph_module.graph.nodes)):
        if node.op in ("call_function", "get_attr", "call_module") and not node.users and node.target not in ASSERTS:
            graph_module.graph.erase_node(node)
            erased = True
    return erased


def get_attribute(root: nn.Module, name: str) -> Any:
    """The object under a dotted name."""
    for part in name.split("."):
        root = getattr(root, part)
    return root


class GraphTensors(Mapping[str, torch.Tensor]):
    """What a graph reads, by dotted name, as it is when it is asked for, without gradients."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            found = get_attribute(self._graph_module, name)
        except AttributeError as error:
            raise KeyError(name) from error
        return found.detach() if isinstance(found, torch.Tensor) else found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(str(n.target) for n in self._graph_module.graph.nodes if n.op == "get_attr"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def set_attribute(root: nn.Module, name: str, value: torch.Tensor | nn.Module) -> None:
    """Put a parameter, buffer or module under a dotted name, making the containers on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(value, nn.Module):
        root.add_module(leaf, value)
    elif isinstance(value, nn.Parameter):
        root._buffers.pop(leaf, None)
        root.__dict__.pop(leaf, None)
        root.register_parameter(leaf, value)
    else:
        root._parameters.pop(leaf, None)
        root.__dict__.pop(leaf, None)
        root.register_buffer(leaf, value, persistent=False)


def set_numbers(root: nn.Module, name: str, numbers: torch.Tensor) -> None:
    """Put other numbers under a name: a buffer stays one; a parameter, and a new name, is one that does not train."""
    *path, leaf = name.split(".")
    holder = root
    for part in path:
        holder = getattr(holder, part, nn.Module())
    is_buffer = leaf in holder._buffers
    set_attribute(root, name, numbers.detach() if is_buffer else nn.Parameter(numbers.detach(), requires_grad=False))


def free_name(root: nn.Module, name: str) -> str:
    """``name``, with underscores behind it until nothing of ``root`` is called so."""
    while hasattr(root, name):
        name += "_"
    return name


def copy_graph(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy that a pass may write to: own graph and containers, shared tensors."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    output: Any = graph.graph_copy(graph_module.graph, mapping, return_output_node=True)
    new_output = graph.output(output[0])
    new_output.meta = dict(output[1].meta)
    graph._codegen = graph_module.graph._codegen
    root = nn.Module()
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            set_attribute(root, str(node.target), get_attribute(graph_module, str(node.target)))
        elif node.op == "call_module":
            _set_module(root, str(node.target), graph_module.get_submodule(str(node.target)))
    result = fx.GraphModule(root, graph)
    result.meta = dict(graph_module.meta)
    result.training = False
    return result


def prefix_attributes(graph_module: fx.GraphModule, prefix: str, names: Collection[str]) -> fx.GraphModule:
    """A copy in which the parameters and buffers ``names`` are called ``prefix`` + name. Tensors are shared."""
    result = copy_graph(graph_module)
    for node in result.graph.nodes:
        if node.op == "get_attr" and node.target in names:
            set_attribute(result, f"{prefix}{node.target}", get_attribute(result, str(node.target)))
            node.target = f"{prefix}{node.target}"
    return copy_graph(result)


def ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Every node that ``nodes`` are computed from."""
    return _closure(nodes, lambda n: n.all_input_nodes)


def descendants(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Every node computed from ``nodes``."""
    return _closure(nodes, lambda n: n.users)


def _closure(nodes: Iterable[fx.Node], neighbours: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        for node in neighbours(stack.pop()):
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


def collect_replaced(graph_module: fx.GraphModule) -> None:
    """Free a graph that its last holder just dropped, so that each weight goes when a pass replaces it.

    Graphs are reference cycles, which only a collection frees. That takes a good part of a second: it is left out where
    the weights of ``graph_module``, the copy a pass works on, are small.
    """
    if sum(t.nbytes for t in chain(graph_module.parameters(), graph_module.buffers())) > _WORTH_COLLECTING:
        gc.collect()


def _set_module(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(leaf, module)


def size_argument(graph: fx.Graph, size: Any) -> Any:
    """An argument that yields a size at run time: the int itself, or a node that computes it from the inputs.

    New nodes go to the graph's current insertion point.
    """
    if isinstance(size, int):
        return size
    expression: Any = size.node.expr
    if expression.is_number:
        return int(expression)
    known: dict[Any, fx.Proxy] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for dim, extent in enumerate(value.shape):
            symbol = extent.node.expr if isinstance(extent, torch.SymInt) else None
            if isinstance(symbol, sympy.Symbol) and symbol in expression.free_symbols and symbol not in known:
                extent_node = graph.call_function(aten.sym_size.int, (node, dim))
                extent_node.meta["val"] = extent
                known[symbol] = fx.Proxy(extent_node)
    missing = expression.free_symbols - known.keys()
    if missing:
        raise ValueError(f"size {expression} depends on {missing}, which no input of the model shows")
    computed = sympy_interp(OptimizedPythonReferenceAnalysis, known, expression)
    return computed.node if isinstance(computed, fx.Proxy) else int(computed)
