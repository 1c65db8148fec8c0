"""Which weights of a unit may be left unmasked in a forward, for another one takes the unit out by itself.

    FFN   y = Σ_i m_i · W_down[:, i] · f(m_i · W_up[i] · x)      with m_i = 0 the term is 0, whatever f makes of 0

While both carry the mask, a pruned unit has no gradient: m_i · m_i is flat at 0 (where f(0) = 0). With the mask on
the column alone, y is the same, and ∂L/∂m_i = ⟨∂L/∂y, W_down[:, i] · f(W_up[i] · x)⟩ says whether the unit would help.
Heads are no other, with the columns of the output projection, and neither are dims of values.

y is the same only where nothing else sees the unit: all that is computed from the weight has to go through the
linears that lead out of its block, and no norm on the way may make other dims of it. Dims of queries and keys have no
such linear behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import torch
from torch import fx

from bpc.scores.plan import MaskPlan
from passes.structure.head_places import HeadPlaces, head_places
from passes.structure.role import Family, Part
from passes.structure.roles import Roles


def carried(plans: Sequence[MaskPlan], roles: Roles) -> tuple[MaskPlan, ...]:
    """The plans, with `MaskPlan.carried` where it is certain."""
    paired = {p.weight: p for p in plans if p.units is not None}
    attention = any(p.role.family is Family.ATTENTION for p in paired.values())
    places = head_places(roles) if attention else {}
    return tuple(_carried(p, paired, roles, places) if p.weight in paired else p for p in plans)


def _carried(
    plan: MaskPlan, paired: Mapping[str, MaskPlan], roles: Roles, places: Mapping[str, tuple[HeadPlaces, ...]]
) -> MaskPlan:
    homes = [block for block in roles.blocks if plan.weight in block.weights]
    if plan.role.leaves or not homes:
        return plan
    ways_out: set[fx.Node] = set()
    blocks = torch.ones(plan.shape[plan.out_dim], dtype=torch.bool)
    for block in homes:
        leaving = block.parts.get(Part.OUTPUT if block.family is Family.ATTENTION else Part.DOWN, frozenset())
        weights = [w for w in block.weights if roles[w].role.leaves]
        if not leaving or any(w not in paired or paired[w].scores != plan.scores for w in weights):
            return plan
        ways_out |= leaving
        if block.family is Family.ATTENTION:
            blocks &= _unmixed(plan, places.get(block.name, ()))
    if not blocks.any() or _seen_elsewhere(plan, roles.graph_module.graph, ways_out):
        return plan
    return replace(plan, carried=tuple(blocks.view(-1, plan.block[plan.out_dim]).all(1).tolist()))


def _unmixed(plan: MaskPlan, places: Sequence[HeadPlaces]) -> torch.Tensor:
    """The output features that take part in heads by themselves; of dims inside heads those of values alone."""
    found = torch.zeros(plan.shape[plan.out_dim], dtype=torch.bool)
    if any(p.part is Part.OUTPUT and p.mixed for p in places):
        return found
    for own in places:
        if own.weight == plan.weight and not own.mixed and (own.part is Part.VALUE or not plan.stretches):
            found[own.index[own.index >= 0]] = True
    return found


def _seen_elsewhere(plan: MaskPlan, graph: fx.Graph, ways_out: Set[fx.Node]) -> bool:
    """Whether the graph's outputs depend on the weight, or its bias, by another way than ``ways_out``."""
    names = {plan.weight, plan.bias}
    stack = [node for node in graph.nodes if node.op == "get_attr" and str(node.target) in names]
    seen = set(stack)
    while stack:
        for user in stack.pop().users:
            if user.op == "output":
                return True
            if user not in seen and user not in ways_out:
                seen.add(user)
                stack.append(user)
    return False
