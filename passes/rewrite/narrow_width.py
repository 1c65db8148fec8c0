"""A stream of D channels  ->  the k that a width mask keeps

    RestrictWidth     norm(x)  ->  scatter(norm(x[kept])), mean(x)  ->  mean(x[kept]): the model that is meant, to run
    NarrowWidth       W [.., D, ..]  ->  W [.., kept, ..], and every literal size follows: the model that is small

Both take parameters whose entries along channels that go are 0 (`ApplyMasks`), so that products leave these out, and
then compute the same: every operator along the stream treats channels one by one, or sums over them. Outputs of the
model along it hold the kept channels alone, in both. Preconditions: a `Narrowing` of this graph, true metadata, no mask
that is not applied. Postconditions: metadata is true. Refusals are the analysis' (`passes.analysis.width`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from passes.analysis.width import Narrowing
from passes.ir.graph import copy_graph, eliminate_dead_code, free_name, get_attribute, set_attribute, set_numbers
from passes.ir.manager import Pass, PassResult
from passes.ir.metadata import propagate_metadata
from passes.ir.sizes import is_parameter, shape_of, tensor_of
from passes.ops.arguments import argument, set_argument, tensor_argument
from passes.ops.norms import trailing_dims
from passes.ops.rule import Kind
from passes.ops.table import kind_of, rule_for
from passes.plan.data import Cut, cut_tensor

aten = torch.ops.aten


@dataclass(frozen=True)
class NarrowWidth(Pass):
    """Cut what lies along the stream."""

    narrowing: Narrowing
    name = "narrow-width"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        cuts = width_cuts(result, self.narrowing)
        for node in result.graph.nodes:
            if node.op == "call_function" and tensor_of(node) is not None:
                resize = rule_for(node).resize
                if resize is not None:
                    resize(node, self.narrowing)
        for cut in cuts:
            set_numbers(result, cut.parameter, cut_tensor(get_attribute(result, cut.parameter).detach(), cut))
        propagate_metadata(result)
        eliminate_dead_code(result)
        result.recompile()
        return PassResult(result, bool(cuts), {"cuts": cuts})


def width_cuts(graph_module: fx.GraphModule, narrowing: Narrowing) -> tuple[Cut, ...]:
    """One `Cut` per parameter and buffer along the stream."""
    cuts = []
    for name in dict.fromkeys(str(n.target) for n in graph_module.graph.nodes if is_parameter(n)):
        tensor = get_attribute(graph_module, name)
        if isinstance(tensor, torch.Tensor) and (own := narrowing.of_parameter(name, tensor.dim())):
            keep = {dim: tuple(kept.nonzero().flatten().tolist()) for dim, kept in own.items()}
            cuts.append(Cut(name, tuple(tensor.shape), keep))
    return tuple(cuts)


@dataclass(frozen=True)
class RestrictWidth(Pass):
    """Let every sum along the stream take the kept channels alone; shapes inside stay as they are."""

    narrowing: Narrowing
    name = "restrict-width"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        nodes = {node.name: node for node in result.graph.nodes}
        by_node: dict[fx.Node, dict[fx.Node, list[int]]] = {}
        for name, read, dim in self.narrowing.sums:
            by_node.setdefault(nodes[name], {}).setdefault(nodes[read], []).append(dim)
        full: dict[fx.Node, fx.Node] = {}  # norms, which are narrow now -> their results at the old width
        for node in list(result.graph.nodes):
            for source, dims in by_node.get(node, {}).items():
                if node.op != "output" and kind_of(node) is Kind.NORM:
                    full[node] = self._restrict_norm(node, source, full.get(source, source), dims)
                else:
                    value = full.get(source, source)
                    node.replace_input_with(value, self._kept(node, value, source, dims))
        propagate_metadata(result)
        result.recompile()
        return PassResult(result, True, {"sums": len(by_node)})

    def _kept(self, before: fx.Node, value: fx.Node, like: fx.Node, dims: Sequence[int]) -> fx.Node:
        """``value`` with the channels alone that ``like`` keeps along ``dims``, in front of a node."""
        for dim in dims:
            keep = self.narrowing.keep(like, dim)
            assert keep is not None
            value = _select(before, value, dim, keep.nonzero().flatten())
        return value

    def _restrict_norm(self, node: fx.Node, source: fx.Node, value: fx.Node, dims: Sequence[int]) -> fx.Node:
        """y = norm(x, w, b)  ->  norm(x[kept], w[kept], b[kept]), and zeros elsewhere: the node it returns."""
        first = trailing_dims(node)[0]
        keeps = {dim: self.narrowing.keep(source, dim) for dim in dims}
        sizes = list(argument(node, "normalized_shape"))
        for name in ("weight", "bias"):
            operand = tensor_argument(node, name)
            if operand is not None:
                for dim, keep in keeps.items():
                    assert keep is not None
                    operand = _select(node, operand, dim - first, keep.nonzero().flatten())
                set_argument(node, name, operand)
        for dim, keep in keeps.items():
            assert keep is not None
            sizes[dim - first] = int(keep.sum())
        set_argument(node, "normalized_shape", sizes)
        set_argument(node, "input", self._kept(node, value, source, dims))
        users, rank, last = list(node.users), len(shape_of(source)), node
        after = node.next
        for dim, keep in keeps.items():
            assert keep is not None
            with node.graph.inserting_before(after):
                pads = [0] * (2 * (rank - 1 - dim)) + [0, 1]
                last = node.graph.call_function(aten.constant_pad_nd.default, (last, pads))
            place = torch.where(keep, torch.cumsum(keep, 0) - 1, int(keep.sum()))  # those that go: the zero at the end
            last = _select(after, last, dim, place)
        for user in users:
            user.replace_input_with(node, last)
        return last


def _select(before: fx.Node, value: fx.Node, dim: int, index: torch.Tensor) -> fx.Node:
    graph, module = before.graph, before.graph.owning_module
    assert module is not None
    name = free_name(module, "width_index_0")
    set_attribute(module, name, index)
    with graph.inserting_before(before):
        return graph.call_function(aten.index_select.default, (value, dim, graph.get_attr(name)))
