"""Arguments of operators by their schema's names, defaults filled in: positions and keywords look alike."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import fx


@functools.cache
def _parameters(target: torch._ops.OpOverload) -> tuple[tuple[str, Any, bool], ...]:
    """(name, default, keyword only) of every parameter of an operator."""
    return tuple(
        (a.name, a.default_value if a.has_default_value() else None, a.kwarg_only) for a in target._schema.arguments
    )


def arguments(node: fx.Node) -> dict[str, Any]:
    """{name: argument} of a call of an ATen operator, None where an argument has neither a value nor a default."""
    assert isinstance(node.target, torch._ops.OpOverload), node.target
    given = {name: default for name, default, _ in _parameters(node.target)}
    given.update(zip(given, node.args, strict=False))
    given.update(node.kwargs)
    return given


def argument(node: fx.Node, name: str) -> Any:
    """One argument by its schema's name; None for operators without such a parameter, or where it is not given."""
    return arguments(node).get(name)


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    """Write one argument, wherever the call has it. Raises ValueError for operators without such a parameter."""
    assert isinstance(node.target, torch._ops.OpOverload), node.target
    names = [n for n, _, _ in _parameters(node.target)]
    if name not in names:
        raise ValueError(f"{node.target} has no parameter {name!r}")
    position = names.index(name)
    if position < len(node.args):
        node.args = (*node.args[:position], value, *node.args[position + 1 :])
    else:
        node.kwargs = {**node.kwargs, name: value}


def tensor_argument(node: fx.Node, name: str) -> fx.Node | None:
    """An argument that is a value of the graph; None for numbers and for what is not given."""
    found = argument(node, name)
    return found if isinstance(found, fx.Node) else None


def first_argument(node: fx.Node) -> fx.Node:
    """The value an operator works on: its first argument, whatever it is called."""
    found = node.args[0] if node.args else next(iter(arguments(node).values()))
    assert isinstance(found, fx.Node), node
    return found
