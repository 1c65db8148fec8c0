"""What can be removed: every attention and feed-forward network of a graph, cut into units.

A unit is a stretch of input features of the linear that leads out of its block: a head of the attention's output
projection, or one FFN dim. Nothing else needs to be named: once these columns are zero, whatever only fed them (rows
of query, key, value, up and gate, fused or not, biases, shared key and value heads) is dead, and the compiler finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from passes.structure.role import Family, Part
from passes.structure.roles import LinearRole, Roles
from passes.structure.weight_uses import weight_uses


@dataclass(frozen=True)
class Sublayer:
    """One prunable block: ``count`` units of ``size`` input features each of ``weight``.

    ``nodes`` names the linear nodes that multiply by the weight, in graph order (several where layers share it);
    ``parts`` are all weight matrices of the block, by which its cost is counted.
    """

    name: str
    family: Family
    weight: str
    bias: str | None
    out_dim: int
    nodes: tuple[str, ...]
    size: int
    count: int
    parts: tuple[str, ...]

    @property
    def features(self) -> int:
        """Input features of the weight."""
        return self.size * self.count

    @property
    def unit(self) -> str:
        """What one unit is called."""
        return "head" if self.family is Family.ATTENTION else "dim"


def find_sublayers(graph_module: fx.GraphModule, roles: Roles) -> tuple[Sublayer, ...]:
    """The prunable blocks of a traced graph, in graph order.

    Heads that share a key and value head are one unit, so that what is left still has as many queries per key; where
    all of a layer share a single one, every query head is a unit. Left out: classification heads (no residual
    connection carries on what they drop) and attentions whose heads cannot be told from the shapes.
    """
    uses: dict[str, list[str]] = {}
    for node, use in weight_uses(graph_module).items():
        uses.setdefault(use.weight, []).append(node.name)
    position = {node.name: index for index, node in enumerate(graph_module.graph.nodes)}
    found = []
    for role in roles:
        if not role.role.leaves or role.role.family not in (Family.ATTENTION, Family.FFN) or role.block_id is None:
            continue
        block = [other for other in roles if other.block_id == role.block_id]
        size = _unit_size(role, block)
        if size is None:
            continue
        found.append(
            Sublayer(
                name=role.block_id,
                family=role.role.family,
                weight=role.weight,
                bias=role.bias,
                out_dim=role.out_dim,
                nodes=tuple(uses[role.weight]),
                size=size,
                count=role.in_features // size,
                parts=tuple(other.weight for other in block),
            )
        )
    return tuple(sorted(found, key=lambda sublayer: position[sublayer.nodes[-1]]))


def _unit_size(role: LinearRole, block: list[LinearRole]) -> int | None:
    if role.role.family is Family.FFN:
        return 1
    if role.heads is None or role.head_dim is None or role.heads * role.head_dim != role.in_features:
        return None
    shared = min((heads for other in block if (heads := _key_heads(other, role.heads))), default=role.heads)
    per_unit = role.heads // shared if shared > 1 and role.heads % shared == 0 else 1
    return per_unit * role.head_dim


def _key_heads(role: LinearRole, query_heads: int) -> int | None:
    """How many heads of keys and values a weight has rows of; None for queries and outputs."""
    if role.head_dim is None or role.role.part is None or role.role.leaves:
        return None
    members = role.role.part.members - {Part.QUERY}
    if not members:
        return None
    heads = role.out_features // role.head_dim - (query_heads if Part.QUERY in role.role.part.members else 0)
    return heads // len(members)
