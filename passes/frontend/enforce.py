"""How graphs enforce their guards: as lines of ``forward``, which copies, rewrites and pickling keep.

``torch.compile`` traces the lines; exported programs get torch's own guards of them; ``.pt2`` files carry them along.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from torch import fx
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from passes.ir.graph import copy_graph
from passes.ir.info import Guard, InputError


def guarded(graph_module: fx.GraphModule, guards: Sequence[Guard]) -> None:
    """Write the guards into the graph's forward, in place of those it had."""
    info: _PyTreeInfo = graph_module.graph._codegen.pytree_info  # type: ignore[attr-defined]
    graph_module.graph.set_codegen(_GuardedCodeGen(info, guards))
    graph_module.recompile()


def with_guard_nodes(graph_module: fx.GraphModule, guards: Sequence[Guard]) -> fx.GraphModule:
    """The graph with one node more, which evaluates the guards: torch.export runs nodes, not ``forward``."""
    result = copy_graph(graph_module)
    inputs = [node for node in result.graph.nodes if node.op == "placeholder"]
    if guards and inputs:
        with result.graph.inserting_after(inputs[-1]):
            result.graph.call_function(_take_for_granted, (tuple(guard.condition for guard in guards), *inputs))
    return result


def _take_for_granted(conditions: Sequence[str], *inputs: Any) -> None:
    """In an export, each condition on symbolic sizes becomes a guard of the exported program."""
    for condition in conditions:
        Guard(condition, "", "").holds(inputs)


def only_of_sizes(guard: Guard) -> bool:
    """Whether a guard that a file brought computes with sizes and plain values of inputs, and nothing else."""
    try:
        trees = [ast.parse(text.format(*["x"] * 1000), mode="eval") for text in (guard.condition, guard.given)]
    except (SyntaxError, ValueError, IndexError, KeyError, AttributeError):
        return False
    return all(_is_arithmetic(node) for tree in trees for node in ast.walk(tree))


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        attribute = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
        return (not node.keywords and function in ("x.size", "min", "max", "abs", "math.floor", "math.ceil")) or (
            function == "getattr" and attribute in ("'shape'", "'ndim'")
        )
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) in ("x.size", "math.floor", "math.ceil")
    if isinstance(node, ast.Name):
        return node.id in ("x", "min", "max", "abs", "math", "getattr")
    return isinstance(node, _ARITHMETIC)


def require(holds: Any, message: str, given: Any) -> None:
    """Raise `InputError` unless the condition holds.

    A graph that is unpickled runs once with proxies: there the guard becomes a node of the new graph.
    """
    proxy = next((value for value in (holds, given) if isinstance(value, fx.Proxy)), None)
    if proxy is not None:
        proxy.tracer.create_proxy("call_function", require, (holds, message, given), {})
        return
    if not holds:
        raise InputError(
            f"{message}; got {given}. The graph was traced for such inputs only: trace an example like yours"
        )


for _checks in (require, _take_for_granted):
    fx.node.has_side_effect(_checks)  # no dead code, although nothing reads it


_ARITHMETIC = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Constant, ast.Tuple, ast.operator,
    ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip


class _GuardedCodeGen(_PyTreeCodeGen):
    def __init__(self, info: _PyTreeInfo, guards: Sequence[Guard]) -> None:
        super().__init__(info)
        self.guards = tuple(guards)

    def additional_globals(self) -> list[tuple[str, Any]]:
        return [*super().additional_globals(), (require.__name__, require)]

    def gen_fn_def(self, free_vars: list[str], *args: Any, **kwargs: Any) -> str:
        inputs = [re.split(r"[:#=]", variable)[0].strip() for variable in free_vars]
        lines = [super().gen_fn_def(free_vars, *args, **kwargs)]
        for guard in self.guards:
            condition, given = guard.condition.format(*inputs), guard.given.format(*inputs)
            lines.append(f"    {require.__name__}({condition}, {guard.message!r}, {given})")
        return "\n".join(lines)
