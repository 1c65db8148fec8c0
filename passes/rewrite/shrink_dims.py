"""W [out, in]  ->  W [kept out, kept in], and every literal size, slice bound and table follows.

Preconditions: masks applied, constants folded, no dead code. Postconditions: every axis has the size its keep-set says;
attention scales are explicit; parameters are new tensors. Refusals are the pins of `passes.analysis.coupling`: an axis
with a pin keeps all its indices, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import fx

from passes.analysis.analysis import analyse
from passes.analysis.coupling.solver import Coupling
from passes.ir.graph import (
    collect_replaced,
    copy_graph,
    eliminate_dead_code,
    free_name,
    get_attribute,
    set_attribute,
    set_numbers,
)
from passes.ir.manager import Pass, PassResult
from passes.options import ShrinkOptions
from passes.plan.data import cut_tensor
from passes.rewrite.repeats import rewrite_repeats

aten = torch.ops.aten


@dataclass(frozen=True)
class ShrinkDims(Pass):
    """Cut every parameter, and let every operator's rule resize what it says of sizes."""

    options: ShrinkOptions = field(default_factory=ShrinkOptions)
    name = "shrink-dims"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        del graph_module
        collect_replaced(result)
        analysis = analyse(result, options=self.options)
        facts = {"cuts": (), "heads": (), "analysis": analysis}
        cuts, coupling = analysis.cuts(), analysis.coupling
        if not any(cut.keep for cut in cuts):
            return PassResult(result, False, facts)
        calls = [n for n in result.graph.nodes if n.op == "call_function"]
        resizes = [(n, resize) for n in calls if (resize := analysis.constants.rule(n).resize) is not None]
        _select_at_use(result, coupling)
        rewrite_repeats(result, coupling)
        for node, resize in resizes:
            resize(node, coupling)
        for cut in cuts:
            set_numbers(result, cut.parameter, cut_tensor(get_attribute(result, cut.parameter).detach(), cut))
        eliminate_dead_code(result)
        result.recompile()
        return PassResult(result, True, facts | {"cuts": cuts, "heads": analysis.head_views()})


def _select_at_use(graph_module: fx.GraphModule, coupling: Coupling) -> None:
    """Where a table keeps more than a user does, pick the user's indices in front of it, one dim after the other."""
    graph = graph_module.graph
    chosen: dict[tuple[fx.Node, int, tuple[int, ...]], fx.Node] = {}
    reads: dict[tuple[fx.Node, fx.Node], fx.Node] = {}  # (user, table) -> what the user reads instead by now
    for number, cover in enumerate(coupling.ties.covers):
        table, user = coupling.keep_axis(cover.table), coupling.keep_axis(cover.user)
        assert table is not None
        assert user is not None
        if torch.equal(table, user):
            continue
        current = reads.get((cover.node, cover.operand), cover.operand)
        positions = (torch.cumsum(table, 0) - 1)[user]
        key = (current, cover.dim, tuple(positions.tolist()))
        if key not in chosen:
            name = free_name(graph_module, f"table_index_{number}")
            set_attribute(graph_module, name, positions)
            with graph.inserting_after(current):
                index = graph.get_attr(name)
            with graph.inserting_after(index):
                chosen[key] = graph.call_function(aten.index_select.default, (current, cover.dim, index))
        cover.node.replace_input_with(current, chosen[key])
        reads[cover.node, cover.operand] = chosen[key]
