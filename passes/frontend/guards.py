"""Input guards: a graph refuses inputs that the model would have treated otherwise than it treated the example.

A model that branches on a size (``if x.shape[1] > 8``), or on a flag, is traced along the example's branch.
``torch.export`` records what it took for granted; `passes.frontend.enforce` writes it into the graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.printers import PythonPrinter

from passes.ir.info import Guard
from passes.ir.sizes import is_static, shape_of, tensor_of

# What torch asks here decides strides, or is checked again by the operator when it runs.
_OF_OPERATORS = tuple(
    str(Path(torch.__file__).parent / name) for name in ("_prims_common", "_refs", "_prims", "_ops.py")
)


def input_guards(exported: torch.export.ExportedProgram) -> tuple[Guard, ...]:
    """Ranks, fixed and equal sizes, ranges, plain values, and the model's own conditions on sizes.

    A size of 1 is let through although torch takes none for granted: `trace` tries it on the model.
    """
    nodes = {node.name: node for node in exported.graph.nodes}
    guards: list[Guard] = []
    sources: dict[sympy.Symbol, tuple[int, int]] = {}
    names: list[str] = []
    sized: list[tuple[int, int, Any]] = []
    specs = [s for s in exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    for position, spec in enumerate(specs):
        names.append(spec.arg.name)
        if isinstance(spec.arg, ConstantArgument):
            guards += _value_guard(position, spec.arg)
            continue
        value = nodes[spec.arg.name].meta["val"]
        if not isinstance(value, torch.Tensor):
            continue
        rank = value.dim()
        shape, dims = (f"getattr({{{position}}}, {name!r}, None)" for name in ("shape", "ndim"))
        guards.append(Guard(f"{dims} == {rank}", f"input {names[-1]!r} must be a tensor of {rank} dims", shape))
        for dim, size in enumerate(value.shape):
            expression = sympy.Integer(size) if isinstance(size, int) else size.node.expr
            if isinstance(expression, sympy.Symbol):
                sources.setdefault(expression, (position, dim))
            sized.append((position, dim, expression))
    words = _Words(names, sources)
    for position, dim, expression in sized:
        if sources.get(expression) != (position, dim) and words.knows(expression):
            given = f"{{{position}}}.size({dim})"
            wanted = words.of(expression)
            guards.append(
                Guard(
                    f"{given} == {words.code(expression)}",
                    f"input {names[position]!r} must have size {wanted} in dim {dim}",
                    given,
                )
            )
    guards += _ranges(exported, sources, names)
    guards += _conditions(exported, nodes, words)
    return tuple(guards)


def at_least_two(position: int, dim: int, name: str) -> Guard:
    """The graph does not compute what the model does where this size is 1."""
    given = f"{{{position}}}.size({dim})"
    return Guard(f"{given} != 1", f"input {name!r} must be longer than 1 in dim {dim}: the model treats 1 apart", given)


def fixed_sizes(graph_module: fx.GraphModule) -> tuple[Guard, ...]:
    """The sizes of inputs that are plain numbers in a prepared graph: also those that preparing it has fixed."""
    guards = []
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for position, node in enumerate(inputs):
        for dim, size in enumerate(shape_of(node) if tensor_of(node) is not None else ()):
            if is_static(size):
                given = f"{{{position}}}.size({dim})"
                said = f"input {node.name!r} must have size {size} in dim {dim}"
                guards.append(Guard(f"{given} == {size}", said, given))
    return tuple(guards)


class _Words:
    """Expressions over sizes, as Python and for people."""

    def __init__(self, names: list[str], sources: dict[sympy.Symbol, tuple[int, int]]) -> None:
        self._sources = {str(symbol): place for symbol, place in sources.items()}
        self._names = names

    def knows(self, expression: Any) -> bool:
        return all(str(symbol) in self._sources for symbol in expression.free_symbols)

    def code(self, expression: Any) -> str:
        return self._write(expression, lambda position: f"{{{position}}}")

    def of(self, expression: Any) -> str:
        return self._write(expression, lambda position: self._names[position])

    def _write(self, expression: Any, name: Callable[[int], str]) -> str:
        def size(match: re.Match[str]) -> str:
            if match[0] not in self._sources:
                return match[0]
            position, dim = self._sources[match[0]]
            return f"{name(position)}.size({dim})"

        return re.sub(r"[A-Za-z_]\w*", size, PythonPrinter().doprint(expression))


def _value_guard(position: int, argument: ConstantArgument) -> Iterator[Guard]:
    value = argument.value
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and value == value):
        given = f"{{{position}}}"
        shown = repr(value).replace("{", "{{").replace("}", "}}")
        test = f"{given} is None" if value is None else f"{given} == {shown}"
        yield Guard(test, f"input {argument.name!r} must be {value!r}", given)


def _ranges(
    exported: torch.export.ExportedProgram, sources: dict[sympy.Symbol, tuple[int, int]], names: list[str]
) -> Iterator[Guard]:
    for symbol, allowed in exported.range_constraints.items():
        if symbol not in sources:
            continue
        position, dim = sources[symbol]
        given = f"{{{position}}}.size({dim})"
        if allowed.lower > 2:
            yield Guard(
                f"{given} >= {allowed.lower}",
                f"input {names[position]!r} must have size {allowed.lower} or more in dim {dim}",
                given,
            )
        if allowed.upper is not int_oo and allowed.upper < 2**31:
            yield Guard(
                f"{given} <= {allowed.upper}",
                f"input {names[position]!r} must have size {allowed.upper} or less in dim {dim}",
                given,
            )


def _conditions(exported: torch.export.ExportedProgram, nodes: dict[str, fx.Node], words: _Words) -> Iterator[Guard]:
    values = [v for node in nodes.values() if isinstance(v := node.meta.get("val"), FakeTensor)]
    env = values[0].fake_mode.shape_env if values else None
    if env is None:
        return
    seen: set[Any] = set()
    for guard in env.guards:
        where = guard.sloc.framework_loc
        file = getattr(where, "filename", "")
        expression = env.replace(guard.expr)
        if (
            expression in seen
            or not expression.free_symbols
            or file.startswith(_OF_OPERATORS)
            or not words.knows(expression)
        ):
            continue
        if len(expression.free_symbols) == 1 and _is_range(expression):
            continue  # in the range constraints
        seen.add(expression)
        line = f" ({Path(file).name}:{getattr(where, 'lineno', 0)})" if file else ""
        text = words.of(expression)
        sizes = ", ".join(words.code(symbol) for symbol in sorted(expression.free_symbols, key=str))
        yield Guard(words.code(expression), f"the model was traced where {text}{line}", f"({sizes},)")


def _is_range(expression: Any) -> bool:
    return (
        isinstance(expression, sympy.Rel)
        and not isinstance(expression, sympy.Eq | sympy.Ne)
        and any(side.is_Symbol for side in expression.args)
    )
