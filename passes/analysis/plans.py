"""What the facts mean for every parameter, as data: folds, cuts, and how heads are viewed."""

from __future__ import annotations

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.coupling.solver import Coupling
from passes.analysis.liveness import Liveness
from passes.ir.graph import get_attribute
from passes.ir.sizes import is_parameter
from passes.ops.facts import Axis, as_rows, some
from passes.ops.linear_form import LinearForm
from passes.plan.data import Cut, Fold, HeadView


def find_fold(graph_module: fx.GraphModule, constants: Constants, uses: list[LinearForm]) -> Fold | None:
    """Which input channels of one weight fold, and into which bias; None if none do. Changes nothing."""
    form = uses[0]
    columns = constants.folds(form)
    pattern = constants.pattern(form.weight_name) if bool(columns.any()) else None
    if pattern is not None:  # a weight that cannot be read counts as dense
        columns = columns & some(form.all_rows(pattern), 0)
    if not bool(columns.any()):
        return None
    _, numbers = constants.folded_constants(form)
    index = columns.nonzero().flatten()
    return Fold(
        weight=form.weight_name,
        bias=_bias_name(graph_module, uses),
        new_bias=form.bias is None,
        in_dim=form.in_dim,
        columns=tuple(index.tolist()),
        constants=tuple(numbers[index].double().tolist()),
    )


def _bias_name(graph_module: fx.GraphModule, uses: list[LinearForm]) -> str:
    """The bias all uses share; a name of our own where there is none, or where others read it too."""
    name = uses[0].bias_name
    stem = uses[0].weight_name
    if name is None:
        return stem.removesuffix("weight") + "bias" if stem.endswith("weight") else stem + "_folded_bias"
    ours = {use.node for use in uses} | {use.bias_operand for use in uses}
    readers = {u for n in graph_module.graph.nodes if is_parameter(n) and str(n.target) == name for u in n.users}
    return name if readers <= ours else stem + "_folded_bias"


def plan_cuts(
    graph_module: fx.GraphModule, coupling: Coupling, constants: Constants, liveness: Liveness
) -> tuple[Cut, ...]:
    """One `Cut` per parameter that changes."""
    cuts = []
    names = dict.fromkeys(str(n.target) for n in graph_module.graph.nodes if is_parameter(n))
    cleared = _rows_to_clear(constants, liveness)
    for name in names:
        shape = tuple(get_attribute(graph_module, name).shape)
        keep: dict[int, tuple[int, ...]] = {}
        for dim in range(len(shape)):
            kept = coupling.keep_axis(Axis(f"@{name}", dim))
            if kept is not None and not bool(kept.all()):
                keep[dim] = tuple(kept.nonzero().flatten().tolist())
        rows, dim = cleared.get(name, ((), 0))
        rows = tuple(r for r in rows if dim not in keep or r in set(keep[dim]))
        if keep or rows:
            cuts.append(Cut(name, shape, keep, rows, dim))
    return tuple(cuts)


def head_views(coupling: Coupling) -> tuple[HeadView, ...]:
    """How the parameters' dims are viewed as (heads, dims), before and after."""
    found = {}
    for grid in coupling.ties.grids:
        if len(grid.parts) != 2:
            continue
        numbers = [coupling.class_of[p] for p in grid.parts]
        after = tuple(
            int(coupling.rows[n][0].sum()) if n in coupling.rows else int(coupling.keeps[n].sum()) for n in numbers
        )
        for member in coupling.members[coupling.class_of[grid.flat]]:
            if member.value.startswith("@"):
                found[member] = HeadView(
                    member.value[1:], member.dim, (grid.sizes[0], grid.sizes[1]), (after[0], after[1])
                )
    return tuple(found[member] for member in sorted(found))


def _rows_to_clear(constants: Constants, liveness: Liveness) -> dict[str, tuple[tuple[int, ...], int]]:
    """Output features of linear weights that nobody reads but that may have to stay: {parameter: (rows, dim)}.

    A constant feature keeps its bias: other facts rest on its number.
    """
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    for name, uses in constants.uses.items():
        if not constants.only_linear(name) or len({use.out_dim for use in uses}) > 1:
            continue
        kept = torch.zeros(get_attribute(constants.graph_module, name).shape[uses[0].out_dim], dtype=torch.bool)
        for use in uses:
            kept_here = use.seen(kept)  # a view: writes go to `kept`
            kept_here |= _last_dim(liveness.of(use.node)) | _last_dim(constants.fact(use.node).const)
        rows = tuple((~kept).nonzero().flatten().tolist())
        if rows:
            found[name] = (rows, uses[0].out_dim)
            ours = {use.node for use in uses} | {use.bias_operand for use in uses}
            for bias in {use.bias_name for use in uses if use.bias_name is not None}:
                readers = {u for n in constants.graph_module.graph.nodes if n.target == bias for u in n.users}
                if readers <= ours:
                    found[bias] = (rows, 0)
    return found


def _last_dim(fact: torch.Tensor) -> torch.Tensor:
    return some(as_rows(fact), 0)
