"""W [out, in]  ->  W [kept out, kept in], and every literal size, slice bound and table follows.

Preconditions: masks applied, no dead code. Postconditions: every axis has the size its keep-set says; attention scales
are explicit; parameters are new tensors. Refusals are the pins of `passes.analysis.coupling`: an axis with a pin keeps
all its indices, with the reason.

Constants that this pass's analysis finds are folded here, whatever was folded before: a folded channel counts as dead,
so what is cut and what was folded have to rest on the same facts. Folding lets more be recognised: a product's result
is its bias to the last bit then, where before the sum had a rounding error of its own at every position.
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
    get_attribute,
    set_numbers,
)
from passes.ir.manager import Pass, PassResult
from passes.options import ShrinkOptions
from passes.plan.data import Fold, cut_tensor
from passes.rewrite.fold_constants import fold_constants
from passes.rewrite.repeats import rewrite_repeats
from passes.rewrite.selected import select


@dataclass(frozen=True)
class ShrinkDims(Pass):
    """Cut every parameter, and let every operator's rule resize what it says of sizes."""

    options: ShrinkOptions = field(default_factory=ShrinkOptions)
    name = "shrink-dims"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        del graph_module
        collect_replaced(result)
        analysis, folds = analyse(result, options=self.options), list[Fold]()
        while more := fold_constants(result, analysis.constants):
            folds += more
            analysis = analyse(result, options=self.options)
        facts = {"cuts": (), "heads": (), "folds": folds, "analysis": analysis}
        cuts, coupling = analysis.cuts(), analysis.coupling
        if not any(cut.keep for cut in cuts):
            result.recompile()
            return PassResult(result, bool(folds), facts)
        calls = [n for n in result.graph.nodes if n.op == "call_function"]
        resizes = [(n, resize) for n in calls if (resize := analysis.constants.rule(n).resize) is not None]
        _select_at_use(coupling)
        rewrite_repeats(coupling)
        for node, resize in resizes:
            resize(node, coupling)
        for cut in cuts:
            set_numbers(result, cut.parameter, cut_tensor(get_attribute(result, cut.parameter).detach(), cut))
        eliminate_dead_code(result)
        result.recompile()
        return PassResult(result, True, facts | {"cuts": cuts, "heads": analysis.head_views()})


def _select_at_use(coupling: Coupling) -> None:
    """Where a table keeps more than a user does, pick the user's indices in front of it, one dim after the other."""
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
            chosen[key] = select(current, cover.dim, positions, cover.user, coupling, f"table_index_{number}")
        cover.node.replace_input_with(current, chosen[key])
        reads[cover.node, cover.operand] = chosen[key]
