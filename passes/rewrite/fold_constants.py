"""x W.T + b  ->  x' W'.T + (b + sum_j W[:, j] c_j)        where input channel j is the constant c_j

Preconditions: masks are applied. Postconditions: same shapes everywhere; folded weight columns are 0.
Refusals: a weight that something other than a linear product reads (an embedding tied to the output layer), or that
serves several uses with different constants, keeps its columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.plans import find_fold
from passes.ir.graph import collect_replaced, copy_graph, set_numbers
from passes.ir.manager import Pass, PassResult
from passes.ir.sizes import tensor_of
from passes.ops.linear_form import LinearForm
from passes.plan.data import Fold

aten = torch.ops.aten


@dataclass(frozen=True)
class FoldConstants(Pass):
    name = "fold-constants"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        del graph_module
        collect_replaced(result)
        folds = fold_constants(result, Constants(result))
        result.recompile()
        return PassResult(result, bool(folds), {"folds": folds})


def fold_constants(graph_module: fx.GraphModule, constants: Constants) -> list[Fold]:
    """Fold in place all that ``constants`` found. The facts are out of date afterwards if anything was folded."""
    return [f for uses in constants.uses.values() if (f := _fold_uses(graph_module, constants, uses)) is not None]


def _fold_uses(graph_module: fx.GraphModule, constants: Constants, uses: list[LinearForm]) -> Fold | None:
    """Fold the constant input channels of one weight into the bias of each of its uses."""
    fold = find_fold(graph_module, constants, uses)
    if fold is None:
        return None
    form, columns = uses[0], torch.tensor(fold.columns)
    weight = constants.weight(form.weight_name)
    assert weight is not None
    rows = form.all_rows(weight)
    shift = rows[:, columns].double() @ torch.tensor(fold.constants, dtype=torch.float64)
    cleared = rows.index_fill(1, columns, 0)
    set_numbers(graph_module, form.weight_name, cleared if form.out_dim == 0 else cleared.t().contiguous())
    old = constants.weight(str(form.bias.target)) if form.bias is not None else None
    if bool((shift != 0).any()):
        bias = shift.to(rows.dtype) if old is None else (old.double() + shift).to(old.dtype)
        _write_bias(graph_module, uses, fold.bias, bias)
    return fold


def _write_bias(graph_module: fx.GraphModule, uses: list[LinearForm], name: str, bias: torch.Tensor) -> None:
    set_numbers(graph_module, name, bias)
    if uses[0].bias_name == name:  # all uses have the same
        return
    graph = graph_module.graph
    for use in uses:
        with graph.inserting_before(use.node):
            source = graph.get_attr(name)
            fake = tensor_of(use.node)
            assert fake is not None
            source.meta["val"] = fake.new_empty(tuple(bias.shape))
            if use.window is not None:
                source = graph.call_function(aten.slice.Tensor, (source, 0, *use.window))
                source.meta["val"] = fake.new_empty((use.window.stop - use.window.start,))
        _attach_bias(use, source)


def _attach_bias(use: LinearForm, bias: fx.Node) -> None:
    if use.node.target is aten.addmm.default:
        use.node.args = (bias, *use.node.args[1:])
    elif use.node.target is aten.linear.default:
        use.node.args = (use.input, use.weight_operand, bias)
    else:  # mm, matmul: add the bias behind
        with use.node.graph.inserting_after(use.node):
            total = use.node.graph.call_function(aten.add.Tensor, (use.node, bias))
        total.meta["val"] = use.node.meta["val"]
        use.node.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
