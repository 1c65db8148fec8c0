"""Structural roles of linears, read off the graph: never from names, never from a table of architectures.

    attention.query/key/value   the linear that a core's operand comes from; one linear for several: attention.qkv, …
    attention.output            the linear that reads a core's output
    ffn.up, ffn.gate, ffn.down  x + down(f(up(x))) or x + down(f(gate(x)) · up(x)); fused halves: ffn.gate_up
    mlp.up, mlp.gate, mlp.down  the same without a residual connection around it (classification heads)
    other                       every other linear

"Comes from" looks through views, pointwise arithmetic and normalisations; see `passes.structure.reach`. Anything the
rules do not recognise is "other".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import fx

from passes.ir.graph import get_attribute
from passes.ir.info import trace_info
from passes.structure.attention_cores import find_attention_cores
from passes.structure.blocks import Block, attention_block, feed_forward_block
from passes.structure.reach import reach
from passes.structure.role import Role
from passes.structure.stacks import find_stacks
from passes.structure.weight_uses import WeightUse, stacked_weights, weight_uses


@dataclass(frozen=True)
class LinearRole:
    """One weight matrix that linears multiply by, and what it does there.

    A weight used several times (layers that share weights) has one entry; ``node`` is its first use.
    """

    weight: str
    bias: str | None
    role: Role
    shape: tuple[int, int]  # as stored
    out_dim: int  # stored dim of the output features: 0 for nn.Linear, 1 for Conv1D
    node: fx.Node = field(repr=False)
    block_id: str | None = None  # which attention or FFN, e.g. "attention.0"; None for other
    heads: int | None = None  # heads this weight has rows (columns, for the output) of
    head_dim: int | None = None
    stack: str | None = None  # "encoder" or "decoder" in models with cross-attention
    names: tuple[str, ...] = ()  # every name of a tied parameter

    @property
    def out_features(self) -> int:
        return self.shape[self.out_dim]

    @property
    def in_features(self) -> int:
        return self.shape[1 - self.out_dim]


@dataclass(frozen=True)
class Roles:
    """All linears of a graph, in graph order, and the attentions and FFNs they form."""

    linears: tuple[LinearRole, ...]
    blocks: tuple[Block, ...]
    graph_module: fx.GraphModule = field(repr=False, compare=False)

    def __iter__(self) -> Iterator[LinearRole]:
        return iter(self.linears)

    def __len__(self) -> int:
        return len(self.linears)

    def __getitem__(self, weight: str) -> LinearRole:
        """The entry of a weight, by any of its names. Raises KeyError."""
        for role in self.linears:
            if weight in role.names:
                return role
        raise KeyError(f"no linear of the graph multiplies by {weight!r}")

    @property
    def stacked(self) -> Mapping[str, tuple[int, ...]]:
        """Weights that are no matrices, and so have no role: {name: shape}; see `stacked_weights`."""
        return stacked_weights(self.graph_module)

    def names(self) -> tuple[Role, ...]:
        """The roles that exist, sorted."""
        return tuple(sorted({r.role for r in self.linears}))


def find_roles(graph_module: fx.GraphModule) -> Roles:
    """Roles of every weight matrix that linears of a traced graph multiply by; see the module docstring."""
    uses = weight_uses(graph_module)
    cores = find_attention_cores(graph_module.graph)
    sources = reach(graph_module.graph, uses, through_norms=True)
    blocks = [attention_block(f"attention.{i}", core, sources, uses) for i, core in enumerate(cores)]
    taken = {node for block in blocks for node in block.nodes}
    plain = reach(graph_module.graph, uses, through_norms=False)
    for node in uses:
        if node not in taken:
            index = len(blocks) - len(cores)
            block = feed_forward_block(index, node, plain, uses, taken)
            if block is not None:
                blocks.append(block)
    return _collect(graph_module, uses, blocks, find_stacks(blocks, sources, uses))


def _collect(
    graph_module: fx.GraphModule, uses: Mapping[fx.Node, WeightUse], blocks: list[Block], sides: Mapping[str, str]
) -> Roles:
    by_weight: dict[str, list[WeightUse]] = {}
    for use in uses.values():
        by_weight.setdefault(use.weight, []).append(use)
    aliases: dict[str, list[str]] = {}
    for alias, name in trace_info(graph_module).aliases.items():
        aliases.setdefault(name, []).append(alias)
    linears = []
    for weight, its_uses in by_weight.items():
        nodes = {use.node for use in its_uses}
        homes = [(block, block.parts_of(nodes)) for block in blocks if block.parts_of(nodes)]
        role, block = Role.OTHER, None
        if len({b.family for b, _ in homes}) == 1:
            role = homes[0][0].role({part for _, parts in homes for part in parts})
            block = homes[0][0] if role is not Role.OTHER else None
        shape = tuple(get_attribute(graph_module, weight).shape)
        first = its_uses[0]
        heads, head_dim = (
            block.head_shape(role, shape[first.out_dim], shape[1 - first.out_dim]) if block else (None, None)
        )
        linears.append(
            LinearRole(
                weight=weight,
                bias=next((use.bias for use in its_uses if use.bias is not None), None),
                role=role,
                shape=(shape[0], shape[1]),
                out_dim=first.out_dim,
                node=first.node,
                block_id=block.name if block else None,
                heads=heads,
                head_dim=head_dim,
                stack=sides.get(block.name) if block else None,
                names=tuple(dict.fromkeys([weight, *aliases.get(weight, [])])),
            )
        )
    return Roles(tuple(linears), tuple(blocks), graph_module)
