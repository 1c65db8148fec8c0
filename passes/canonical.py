"""One form for things ATen says in several ways, so that analyses and rewrites need one rule.

split, chunk, unbind    ->  slice / select per piece (no operator has several results)
view, _unsafe_view      ->  reshape (whether memory is contiguous is no business of a graph rewrite)
select of a view        ->  view of a slice (see `raise_selects`: fused projections)
batch · heads           ->  batch, heads (see `unmerge`)
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from passes.raise_selects import raise_selects
from passes.symbols import unify_symbols
from passes.unmerge import unmerge

aten = torch.ops.aten

_SPLITS = frozenset(
    {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unsafe_split.Tensor, aten.split.sizes,
     aten.tensor_split.sections, aten.unsafe_chunk.default}
)  # fmt: skip
_VIEWS = frozenset({aten.view.default, aten._unsafe_view.default})


def canonicalise(graph_module: fx.GraphModule) -> None:
    """Rewrite in place. Pieces of a split along a data dimension keep their operator (its sizes are symbolic)."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _VIEWS:
            node.target = aten.reshape.default
        elif node.target in _SPLITS or node.target is aten.unbind.int:
            _split_to_slices(graph, node)
    unify_symbols(graph_module)
    raise_selects(graph)
    unmerge(graph)


def _split_to_slices(graph: fx.Graph, node: fx.Node) -> None:
    source = node.args[0]
    pieces: Any = node.meta["val"]
    assert isinstance(source, fx.Node)
    unbind = node.target is aten.unbind.int
    position = 1 if unbind else 2
    dim: Any = node.args[position] if len(node.args) > position else node.kwargs.get("dim", 0)
    rank = source.meta["val"].dim()
    dim %= rank
    if not isinstance(source.meta["val"].shape[dim], int):
        return
    offset = 0
    for number, piece in enumerate(pieces):
        size = 1 if unbind else int(piece.shape[dim])
        for user in [u for u in node.users if u.target is operator.getitem and u.args[1] == number]:
            with graph.inserting_before(user):
                if unbind:
                    new = graph.call_function(aten.select.int, (source, dim, number))
                else:
                    new = graph.call_function(aten.slice.Tensor, (source, dim, offset, offset + size))
            new.meta = dict(user.meta)
            user.replace_all_uses_with(new)
            graph.erase_node(user)
        offset += size
    if not node.users:
        graph.erase_node(node)
