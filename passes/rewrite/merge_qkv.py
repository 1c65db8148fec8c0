"""x Wqᵀ + bq, x Wkᵀ + bk, x Wvᵀ + bv  ->  y = x [Wq; Wk; Wv]ᵀ + [bq; bk; bv], and slices of y

One GEMM instead of several, for linears that read the same value. Not in the default pipeline: whether fewer, larger
products win depends on the runtime; measure.

Preconditions: none (best after shrinking). Postconditions: each merged weight is a new parameter
"<first weight>_merged"; the old ones are no longer read. Refusals, which leave a linear as it is: a weight or bias with
another reader, a transposed weight (addmm), a bias in some of the group only, one linear alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from passes.ir.graph import copy_graph, eliminate_dead_code, get_attribute, set_numbers
from passes.ir.manager import Pass, PassResult
from passes.ir.metadata import call
from passes.ir.sizes import is_parameter
from passes.ops.linear_form import LinearForm, linear_form

aten = torch.ops.aten


@dataclass(frozen=True)
class MergeQKV(Pass):
    """``facts["merged"]``: the weights of every group, in order."""

    name = "merge-qkv"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        groups = [group for group in _groups(result.graph) if len(group) > 1]
        for group in groups:
            _merge(result, group)
        eliminate_dead_code(result)
        result.recompile()
        merged = tuple(tuple(form.weight_name for form in group) for group in groups)
        return PassResult(result, bool(groups), {"merged": merged})


def _groups(graph: fx.Graph) -> list[list[LinearForm]]:
    """Linears of one input that may be merged, in graph order."""
    readers: dict[str, int] = {}
    for node in graph.nodes:
        if is_parameter(node):
            readers[str(node.target)] = readers.get(str(node.target), 0) + len(node.users)
    groups: dict[tuple[fx.Node, bool], list[LinearForm]] = {}
    for node in graph.nodes:
        form = linear_form(node)
        if form is None or node.target is not aten.linear.default or form.window is not None:
            continue
        names = [form.weight_name, *([] if form.bias_name is None else [form.bias_name])]
        if all(readers[name] == 1 for name in names):
            groups.setdefault((form.input, form.bias is None), []).append(form)
    return list(groups.values())


def _merge(root: fx.GraphModule, group: list[LinearForm]) -> None:
    graph, first = root.graph, group[0]
    weights = [get_attribute(root, form.weight_name) for form in group]
    name = f"{first.weight_name}_merged"
    set_numbers(root, name, torch.cat(weights))
    bias_name = f"{first.bias_name}_merged"
    if first.bias_name is not None:
        set_numbers(root, bias_name, torch.cat([get_attribute(root, str(form.bias_name)) for form in group]))
    with graph.inserting_before(first.node):
        arguments = [first.input, _read(graph, name, first.weight, sum(len(w) for w in weights))]
        if first.bias is not None:
            arguments.append(_read(graph, bias_name, first.bias, sum(len(w) for w in weights)))
        merged = call(graph, aten.linear.default, *arguments)
        offset = 0
        for form, weight in zip(group, weights, strict=True):
            piece = call(graph, aten.slice.Tensor, merged, -1, offset, offset + len(weight))
            form.node.replace_all_uses_with(piece)
            offset += len(weight)


def _read(graph: fx.Graph, name: str, like: fx.Node, rows: int) -> fx.Node:
    node = graph.get_attr(name)
    fake = like.meta["val"]
    node.meta["val"] = fake.new_empty((rows, *fake.shape[1:]))
    return node
