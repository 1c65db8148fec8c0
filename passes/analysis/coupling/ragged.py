"""Heads that keep different dims: (H, D) <-> F where head h keeps its own D_h, padded to the layer's largest count.

Inside one head the order of q/k dims (and of v/out dims) means nothing, as long as everything that carries the dim
carries the head too. Then the flat axis may keep, for every kept head, that head's live dims and as many dead (zero)
ones as make the counts equal; the view back to (H, D) stays rectangular and no weight is permuted.
"""

from __future__ import annotations

import torch
from torch import fx

from passes.analysis.coupling.solver import Coupling, rows_for, solve
from passes.analysis.liveness import Liveness
from passes.ir.sizes import shape_of
from passes.ops.facts import Axis, any_over, axis
from passes.ops.ties import Grid


def make_ragged(coupling: Coupling, liveness: Liveness) -> None:
    """Replace rectangular head dims by per-head ones wherever that keeps fewer and nothing forbids it."""
    values = {n.name: n for n in liveness.constants.graph_module.graph.nodes}
    for inner in sorted({coupling.class_of[g.parts[-1]] for g in coupling.ties.grids if len(g.parts) == 2}):
        grids = [g for g in coupling.ties.grids if inner in {coupling.class_of[p] for p in g.parts}]
        base, groups = _head_classes(coupling, grids)
        if base is None or not _may_be_ragged(coupling, inner, grids, groups, values):
            continue
        needed = _live_per_head(coupling, liveness, inner, grids, groups, values)
        heads = coupling.keeps[base]
        count = max(1, int(needed[heads].sum(1).max())) if bool(heads.any()) else 1
        if count < int(coupling.keeps[inner].sum()):
            coupling.rows[inner] = _pad(needed, count)
    if coupling.rows:
        solve_again(coupling)


def _head_classes(coupling: Coupling, grids: list[Grid]) -> tuple[int | None, dict[int, int]]:
    """(class of the heads that own the dims, {class of heads: heads per owner}).

    With grouped queries, the query heads of a group share the dims of their key/value head.
    """
    number = coupling.class_of
    groups = {number[g.parts[0]]: 1 for g in grids}
    for repeat in coupling.ties.repeats:
        whole, part = number[repeat.whole], number[repeat.part]
        if whole in groups and part in groups:
            groups[part] = repeat.group
    owners = [n for n, group in groups.items() if group == 1]
    return (owners[0], groups) if len(owners) == 1 else (None, groups)


def _may_be_ragged(
    coupling: Coupling, inner: int, grids: list[Grid], groups: dict[int, int], values: dict[str, fx.Node]
) -> bool:
    """Only grids (heads, inner) touch the class, and every value that carries it carries the heads.

    Dims viewed as several again (rotary pairs as complex numbers) have places, and so an order.
    """
    ties, number = coupling.ties, coupling.class_of
    if inner in coupling.pinned or inner in groups or any(number[g.flat] == inner for g in ties.grids):
        return False
    if any(len(g.parts) != 2 or number[g.parts[1]] != inner for g in grids):
        return False
    flats = {number[g.flat] for g in grids}
    if any(number[g.flat] in flats and g not in grids for g in ties.grids) or flats & coupling.pinned.keys():
        return False
    related = {number[a] for p in ties.parts for a in (p.whole, p.part) if a is not None}
    related |= {number[a] for c in ties.covers for a in (c.table, c.user)}
    related |= {number[a] for r in ties.repeats for a in (r.whole, r.part)}
    wholes = {number[p.whole] for p in ties.parts if p.part is not None and number[p.part] in flats}
    if inner in related or flats & {number[p.whole] for p in ties.parts} or wholes & coupling.pinned.keys():
        return False
    if flats & {number[a] for c in ties.covers for a in (c.table, c.user)}:
        return False
    for member in coupling.members[inner]:
        node = values.get(member.value)
        if node is None or _heads_in(coupling, node, groups) is None:
            return False
    return True


def _heads_in(coupling: Coupling, node: fx.Node, groups: dict[int, int]) -> tuple[int, int] | None:
    """(the one dim of a value that is a heads dim, heads per owner); None if there is none or more than one."""
    found = [(d, group) for n, group in groups.items() if (d := _dim_in(coupling, node, n)) is not None]
    return found[0] if len(found) == 1 else None


def _dim_in(coupling: Coupling, node: fx.Node, number: int) -> int | None:
    """The one dim of a value that belongs to a class; None if there is none or more than one."""
    dims = [
        d
        for d in range(len(shape_of(node)))
        if (found := axis(node, d)) is not None and coupling.class_of.get(found) == number
    ]
    return dims[0] if len(dims) == 1 else None


def _live_per_head(
    coupling: Coupling,
    liveness: Liveness,
    inner: int,
    grids: list[Grid],
    groups: dict[int, int],
    values: dict[str, fx.Node],
) -> torch.Tensor:
    """(owning heads, dims) bool: live in some value that carries the class, flat or split."""
    tables = []
    for member in coupling.members[inner]:
        node = values[member.value]
        found = _heads_in(coupling, node, groups)
        assert found is not None
        head_dim, group = found
        live = liveness.of(node)
        rest = [d for d in range(live.dim()) if d not in (head_dim, member.dim)]
        table = any_over(live, rest).permute(head_dim, member.dim, *rest)
        tables.append(_per_owner(table.reshape(table.shape[0], table.shape[1]), group))
    for grid in grids:
        for member in coupling.members[coupling.class_of[grid.flat]]:
            if member.value in values:
                table = _flat_live(liveness, values[member.value], member).view(grid.sizes)
                tables.append(_per_owner(table, groups[coupling.class_of[grid.parts[0]]]))
    return torch.stack(tables).any(0)


def _per_owner(table: torch.Tensor, group: int) -> torch.Tensor:
    return table if group == 1 else table.unflatten(0, (-1, group)).any(1)


def _flat_live(liveness: Liveness, node: fx.Node, member: Axis) -> torch.Tensor:
    live = liveness.of(node)
    return any_over(live, [d for d in range(live.dim()) if d != member.dim]).reshape(-1)


def _pad(needed: torch.Tensor, count: int) -> torch.Tensor:
    """Exactly ``count`` dims per head: its live ones, then the first dead ones."""
    order = torch.argsort(~needed, dim=1, stable=True)
    rows = torch.zeros_like(needed)
    rows.scatter_(1, order[:, :count], True)
    return rows


def solve_again(coupling: Coupling) -> None:
    """Solve from the seeds with the ragged rows; a head that needs more than its row goes back to rectangular."""
    while True:
        for kept, seed in zip(coupling.keeps, coupling.seeds, strict=True):
            kept.copy_(seed)
        for inner, rows in coupling.rows.items():
            coupling.keeps[inner][:] = rows.any(0)
        solve(coupling)
        broken = {
            coupling.class_of[g.parts[-1]]
            for g in coupling.ties.grids
            if (rows_of := coupling.rows.get(coupling.class_of[g.parts[-1]])) is not None
            and bool((coupling.keeps[coupling.class_of[g.flat]].view(g.sizes) & ~rows_for(rows_of, g.sizes[0])).any())
        }
        if not broken:
            return
        for inner in broken:
            del coupling.rows[inner]
