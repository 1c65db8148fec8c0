"""One symbol for sizes the model takes to be equal.

torch.export gives every dimension of every input its own symbol. A model that views one input by another's batch size
(nn.MultiheadAttention does: keys are viewed by the batch of the queries) leaves head dims of size 8·s1 // s0 behind,
which look like data. Where setting two symbols of equal example size equal turns such a size into a plain number, they
are one symbol from here on.
"""

from __future__ import annotations

import sympy
import torch
from torch import fx

from passes.ir.metadata import fake_mode, propagate_metadata
from passes.ir.sizes import tensor_of


def unify_symbols(graph_module: fx.GraphModule) -> None:
    """Rewrite the graph's metadata in place."""
    graph = graph_module.graph
    values = [v for n in graph.nodes if n.op == "placeholder" and (v := tensor_of(n)) is not None]
    hints = {
        size.node.expr: int(size.node.hint)  # type: ignore[attr-defined]
        for value in values
        for size in value.shape
        if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol)
    }
    same = _equal_symbols(graph, hints)
    if not same:
        return
    mode = fake_mode(graph)
    env = mode.shape_env
    assert env is not None
    for node in graph.nodes:
        value = tensor_of(node)
        if node.op != "placeholder" or value is None:
            continue
        sizes = [
            env.create_symintnode(s.node.expr.xreplace(same), hint=int(s.node.hint))
            if isinstance(s, torch.SymInt)
            else s
            for s in value.shape
        ]
        with mode:
            node.meta["val"] = torch.empty(sizes, dtype=value.dtype, device=value.device)
    propagate_metadata(graph_module, known=False)


def _equal_symbols(graph: fx.Graph, hints: dict[sympy.Symbol, int]) -> dict[sympy.Symbol, sympy.Symbol]:
    same: dict[sympy.Symbol, sympy.Symbol] = {}
    for node in graph.nodes:
        value = tensor_of(node)
        for size in () if value is None else value.shape:
            if not isinstance(size, torch.SymInt) or len(size.node.expr.free_symbols) != 2:
                continue
            expression = size.node.expr.xreplace(same)
            if len(expression.free_symbols) != 2:
                continue
            first, second = sorted(expression.free_symbols, key=str)
            equal = first in hints and hints.get(second) == hints[first]
            if equal and expression.xreplace({second: first}).is_number:
                same[second] = first
    return same
