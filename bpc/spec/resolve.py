"""From a spec and the roles of a model's linears to one `MaskPlan` per masked weight.

Rules are read in order; a weight belongs to the first rule that matches it. Blocks are written (output features x input
features) and turned into the stored layout here, so that Conv1D weights need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch

from bpc.scores.plan import MaskPlan
from bpc.spec.carry import carried
from bpc.spec.errors import SpecError
from bpc.spec.pairing import Pair, pair_up
from bpc.spec.schema import BlockSize, Rule, Spec
from passes.structure.role import Part, Role
from passes.structure.roles import LinearRole, Roles


def resolve(spec: Spec, roles: Roles) -> tuple[MaskPlan, ...]:
    """One plan per masked weight, in graph order.

    Raises `SpecError` for a rule or a protected name that matches nothing, a symbol without a value, a block that
    does not divide its matrix, weights that cannot be paired, and a regularisation group that does not occur.
    """
    protected = _protected(spec, roles)
    chosen: dict[str, Rule] = {}
    for number, rule in enumerate(spec.rules):
        matched = [r for r in roles if _matches(rule, r)]
        free = [r for r in matched if r.weight not in protected and r.weight not in chosen]
        if not free:
            raise SpecError(_nothing(spec, number, matched, protected, roles))
        chosen.update((r.weight, rule) for r in free)
    blocks = {r.weight: _logical_block(spec, chosen[r.weight], r) for r in roles if r.weight in chosen}
    pairs: dict[str, Pair] = {}
    for rule in spec.rules:
        members = [r for r in roles if chosen.get(r.weight) is rule]
        if rule.paired:
            with torch.device("cpu"):  # which features form a unit is computed, even while models are made on meta
                pairs.update(pair_up(rule, members, blocks, roles))
    shared = {r.weight for r in roles if r.weight in chosen and chosen[r.weight].paired}
    tiles = {weight: block.tiles for block in roles.blocks for weight in block.weights}
    plans = tuple(
        _plan(spec, chosen[r.weight], r, blocks[r.weight], pairs.get(r.weight), tiles.get(r.weight, 1))
        for r in roles
        if r.weight in (pairs if r.weight in shared else chosen)
    )
    if spec.scores.revive:
        with torch.device("cpu"):
            plans = carried(plans, roles)
    _check_groups(spec, {plan.group for plan in plans})
    return plans


def _check_groups(spec: Spec, groups: set[str]) -> None:
    for pattern in spec.regularization.groups:
        if not any(fnmatchcase(group, pattern) for group in groups):
            raise SpecError(
                f"spec {spec.name!r}: regularization.groups: {pattern!r} matches no group. Groups: "
                f"{', '.join(sorted(groups))}."
            )


def _plan(spec: Spec, rule: Rule, role: LinearRole, block: tuple[int, int], pair: Pair | None, tiles: int) -> MaskPlan:
    if pair is not None:
        block = (block[0], pair.block) if pair.by_columns else (pair.block, block[1])
    for size, features, side in zip(block, (role.out_features, role.in_features), ("output", "input"), strict=True):
        if features % size:
            raise SpecError(
                f"spec {spec.name!r}: blocks of {block[0]}x{block[1]} (output x input features) do not divide "
                f"{role.weight} ({role.role}), which has {role.out_features}x{role.in_features}: {features} {side} "
                f"features are no multiple of {size}. Choose a divisor, or protect the weight."
            )
    stored = block if role.out_dim == 0 else block[::-1]
    columns = pair is not None and pair.by_columns
    # Blocks that are whole columns: no row dies before the whole matrix does, and then the bias stays as a constant.
    by_columns = columns or (block[0] == role.out_features and block[1] < role.in_features)
    bias = role.bias if spec.mask_bias and not by_columns else None
    return MaskPlan(
        weight=role.weight,
        bias=bias,
        shape=role.shape,
        block=stored,
        scores=pair.scores if pair else role.weight,
        units=pair.units if pair else None,
        unit_count=pair.count if pair else 0,
        stretches=pair.stretches if pair else (),
        out_dim=role.out_dim,
        role=role.role,
        group=rule.group or default_group(role),
        tiles=tiles if role.role.part is Part.GATE_UP else 1,
        part=role.block_id or "",
        heads=role.heads,
    )


def default_group(role: LinearRole) -> str:
    """Regularisation group of a weight no rule names one for: "attention", "ffn", "decoder.attention", …"""
    family = role.role.family
    return f"decoder.{family}" if role.stack == "decoder" else str(family)


def _matches(rule: Rule, role: LinearRole) -> bool:
    return (
        any(fnmatchcase(role.role, pattern) for pattern in rule.roles)
        and any(fnmatchcase(name, pattern) for name in role.names for pattern in rule.names)
        and rule.stack in ("any", role.stack)
    )


def _protected(spec: Spec, roles: Roles) -> set[str]:
    protected: set[str] = set()
    for pattern in spec.protect:
        hit = {r.weight for r in roles if any(fnmatchcase(name, pattern) for name in r.names)}
        if not hit:
            raise SpecError(
                f"spec {spec.name!r}: protect: {pattern!r} matches no linear weight. Weights: {_some(_weights(roles))}."
            )
        protected |= hit
    return protected


def _nothing(spec: Spec, number: int, matched: Sequence[LinearRole], protected: set[str], roles: Roles) -> str:
    rule = spec.rules[number]
    what = f"roles {list(rule.roles)}"
    what += f", names {list(rule.names)}" if rule.names != ("*",) else ""
    what += f", stack {rule.stack!r}" if rule.stack != "any" else ""
    head = f"spec {spec.name!r}: rules[{number}] ({what}) matches nothing"
    if matched and all(r.weight in protected for r in matched):
        return f"{head} but protected weights: {_some(r.weight for r in matched)}."
    if matched:
        return f"{head} that an earlier rule has not taken; put the more special rule first."
    named = [r for r in roles if any(fnmatchcase(r.role, p) for p in rule.roles)]
    if named and rule.names != ("*",):
        return f"{head}. Weights with such roles: {_some(r.weight for r in named)}."
    return (
        f"{head}. Roles in this model: {', '.join(roles.names()) or 'none (no linear layers found)'}.{_stacked(roles)}"
    )


def _stacked(roles: Roles) -> str:
    """What the model multiplies by besides, and specs do not reach."""
    stacked = roles.stacked
    if not stacked:
        return ""
    named = _some(f"{name} ({' x '.join(map(str, shape))})" for name, shape in stacked.items())
    return (
        f" It also multiplies by parameters of three dims and more, which have no roles: specs mask matrices. {named}. "
        "Masks of your own cut them all the same (passes.shrink, bpc shrink --masks); give a spec rules for the others."
    )


def _weights(roles: Roles) -> list[str]:
    return [r.weight for r in roles]


def _some(items: Iterable[str], limit: int = 6) -> str:
    items = list(items)
    return ", ".join(items[:limit]) + (f", … ({len(items)} in all)" if len(items) > limit else "")


def _logical_block(spec: Spec, rule: Rule, role: LinearRole) -> tuple[int, int]:
    """(output features, input features) of one block; transposed where the roles say so (see `Rule.block`)."""
    transposed = role.role is Role.ATTENTION_OUTPUT or (rule.paired and role.role.part is Part.DOWN)
    features = (role.in_features, role.out_features) if transposed else (role.out_features, role.in_features)
    sizes = tuple(_size(spec, size, role, *features) for size in rule.block)
    return (sizes[1], sizes[0]) if transposed else (sizes[0], sizes[1])


def _size(spec: Spec, size: BlockSize, role: LinearRole, out_features: int, in_features: int) -> int:
    if isinstance(size, int):
        return size
    if size == "head_dim":
        if role.head_dim is None:
            raise SpecError(
                f"spec {spec.name!r}: head_dim has no value for {role.weight} ({role.role}): "
                "no attention head shape was found there. Write a number."
            )
        return role.head_dim
    return out_features if size == "out_features" else in_features
