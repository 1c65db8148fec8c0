"""Grouped heads after the cut: k, v (B, K, S, D) serve the query heads (B, H, L, D) that are left.

    every kept group has g heads     ->  the same operator with groups of g
    uneven groups                    ->  index_select(kv, heads, [kv head of each query head]), no repetition

Part of `shrink_dims`; the relation itself is `Repeat` in `passes.ops.ties`.
"""

from __future__ import annotations

import torch

from passes.analysis.coupling.solver import Coupling
from passes.ops.arguments import set_argument
from passes.ops.ties import Repeat
from passes.rewrite.selected import select

aten = torch.ops.aten


def rewrite_repeats(coupling: Coupling) -> None:
    """Rewrite in place, before literal sizes are (the sizes of expanded dims follow ``coupling``)."""
    for number, repeat in enumerate(coupling.ties.repeats):
        part = coupling.keeps[coupling.class_of[repeat.part]]
        whole = coupling.keeps[coupling.class_of[repeat.whole]]
        # Also where all query heads stay: copies of constant keys count as dead, and the query heads need them all.
        per_group = set(part.view(-1, repeat.group).sum(1)[whole].tolist())
        if len(per_group) == 1:
            _shrink_groups(repeat, coupling, per_group.pop())
        else:
            owners = torch.arange(len(part)) // repeat.group
            _select_owners(repeat, coupling, (torch.cumsum(whole, 0) - 1)[owners[part]], f"head_index_{number}")


def _shrink_groups(repeat: Repeat, coupling: Coupling, group: int) -> None:
    if repeat.copies is not None:
        coupling.keeps[coupling.class_of[repeat.copies]][:] = torch.arange(repeat.group) < group
    elif repeat.node.target is aten.repeat_interleave.self_int:
        set_argument(repeat.node, "repeats", group)


def _select_owners(repeat: Repeat, coupling: Coupling, index: torch.Tensor, name: str) -> None:
    node = repeat.node
    chosen = select(repeat.operand, repeat.dim, index, repeat.part, coupling, name)
    if repeat.copies is not None:  # the reshape reads (.., heads, 1, ..) instead of the expanded value
        node.args = (chosen, *node.args[1:])
    elif node.target is aten.repeat_interleave.self_int:
        node.replace_all_uses_with(chosen)
    else:
        node.replace_input_with(repeat.operand, chosen)
        node.kwargs = {k: v for k, v in node.kwargs.items() if k != "enable_gqa"}
