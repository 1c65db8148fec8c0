"""What a spec matches in a model, as a table, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bpc.scores.plan import MaskPlan
from bpc.spec.schema import Spec
from passes.structure.roles import LinearRole, Roles


def explain(spec: Spec, roles: Roles, plans: Sequence[MaskPlan], *, every_weight: bool = False) -> Table:
    """A table of all linears: role, shapes, blocks, scores, λ group; what no rule matches is listed too.

    Weights that look alike share a row, unless ``every_weight`` asks for one each. Shapes are (output x input).
    """
    by_weight = {plan.weight: plan for plan in plans}
    rows: dict[tuple[str, ...], list[LinearRole]] = {}
    for role in roles:
        cells = _cells(spec, role, by_weight.get(role.weight))
        rows.setdefault((role.weight, *cells) if every_weight else ("", *cells), []).append(role)
    total = sum(r.shape[0] * r.shape[1] for r in roles)
    masked = sum(plan.shape[0] * plan.shape[1] for plan in plans)
    share = 100 * masked / total if total else 0.0
    table = Table(
        title=f"spec {spec.name}: {len(plans)} of {len(roles)} linears masked, {share:.1f} % of {total:,} weights",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("role", no_wrap=True)
    table.add_column("weight" if every_weight else "weights", overflow="fold")
    for heading in ("heads", "out x in", "block", "blocks", "scores"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("bias", "group", "λ"):
        table.add_column(heading)
    for (weight, role_name, *rest), members in rows.items():
        table.add_row(role_name, weight or str(len(members)), *rest, style=None if rest[2] != "-" else "dim")
    return table


def _cells(spec: Spec, role: LinearRole, plan: MaskPlan | None) -> tuple[str, ...]:
    heads = f"{role.heads} x {role.head_dim}" if role.heads else ""
    name = f"{role.role} ({role.stack})" if role.stack else role.role
    size = f"{role.out_features} x {role.in_features}"
    if plan is None:
        return name, heads, size, "-", "", "", "", "", ""
    stored = (plan.block, plan.grid)
    block, grid = stored if plan.out_dim == 0 else (stored[0][::-1], stored[1][::-1])
    shared = " shared" if plan.scores != plan.weight else ""
    penalty = spec.regularization.final_lambda * spec.regularization.weight(plan.group)
    return (
        name,
        heads,
        size,
        f"{block[0]} x {block[1]}",
        f"{grid[0]} x {grid[1]}",
        f"{plan.score_shape[0] * plan.score_shape[1]}{shared}",
        "masked" if plan.bias else "kept" if role.bias else "none",
        plan.group,
        f"{penalty:g}",
    )
