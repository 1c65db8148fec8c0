"""Graphs as text for golden tests: one line per node, with its shape, and the numbers of small whole parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from passes.ir.graph import get_attribute
from passes.ir.sizes import shape_of, tensor_of


def printed(graph_module: fx.GraphModule) -> str:
    """Names are numbered and sizes from the inputs are called n0, n1, …: the text does not depend on torch's naming."""
    names: dict[fx.Node, str] = {}
    symbols: dict[str, str] = {}
    lines = []
    for node in graph_module.graph.nodes:
        names[node] = f"%{len(names)}"
        if node.op == "output":
            lines.append("return " + ", ".join(_argument(a, names) for a in node.args[0]))
            continue
        lines.append(f"{names[node]}{_shape(node, symbols)} = {_call(node, names, graph_module)}")
    return "\n".join(lines) + "\n"


def _call(node: fx.Node, names: dict[fx.Node, str], graph_module: fx.GraphModule) -> str:
    if node.op == "placeholder":
        return f"input {node.target}"
    if node.op == "get_attr":
        return f"{node.target} {_numbers(get_attribute(graph_module, str(node.target)))}".rstrip()
    arguments = [_argument(a, names) for a in node.args]
    arguments += [f"{name}={_argument(a, names)}" for name, a in node.kwargs.items()]
    return f"{str(node.target).removeprefix('aten.')}({', '.join(arguments)})"


def _argument(argument: Any, names: dict[fx.Node, str]) -> str:
    if isinstance(argument, list | tuple):
        return "[" + ", ".join(_argument(a, names) for a in argument) + "]"
    return names[argument] if isinstance(argument, fx.Node) else repr(argument)


def _shape(node: fx.Node, symbols: dict[str, str]) -> str:
    if tensor_of(node) is None:
        return ""
    sizes = [s if isinstance(s, int) else symbols.setdefault(str(s), f"n{len(symbols)}") for s in shape_of(node)]
    return f" [{', '.join(map(str, sizes))}]"


def _numbers(tensor: torch.Tensor) -> str:
    """Small tensors of whole numbers: models of golden tests are built of them."""
    if tensor.numel() > 32 or not torch.equal(tensor, tensor.round()):
        return ""
    return str(tensor.long().tolist())
