"""What was pruned, layer by layer: counted from masks, structural roles and (if the model was compiled) the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from bpc.scores.live import Inner, live_units
from passes.plan.data import Cut, PlanData
from passes.structure.role import Family, Part
from passes.structure.roles import LinearRole, Roles, find_roles


@dataclass(frozen=True)
class Matrix:
    """One weight, laid out with the hidden size down and its inner features (heads, FFN dims) across.

    ``kept``: bool (hidden, inner), True where the mask keeps the entry. ``present``: bool of the same shape, True where
    the small model still has the entry (the kept ones, and zeros that share a row or column with them).
    """

    role: LinearRole
    kept: Tensor
    present: Tensor

    @property
    def title(self) -> str:
        """Short name of what the matrix does: query, up, ..."""
        return self.role.role.part or self.role.role

    @property
    def heads(self) -> int | None:
        """Heads across, for attention matrices."""
        return self.role.heads if self.role.role.family is Family.ATTENTION else None


@dataclass(frozen=True)
class BlockSummary:
    """One attention or FFN: its matrices, and how many heads or dims are left of how many."""

    block_id: str
    matrices: tuple[Matrix, ...]
    units_left: int
    units: int

    @property
    def is_attention(self) -> bool:
        """Attention (units are heads) or FFN (units are dims)."""
        return self.matrices[0].role.role.family is Family.ATTENTION

    @property
    def parameters(self) -> int:
        """Entries of the dense matrices."""
        return sum(m.kept.numel() for m in self.matrices)

    @property
    def parameters_kept(self) -> int:
        """Entries the masks keep."""
        return sum(int(m.kept.sum()) for m in self.matrices)

    @property
    def parameters_present(self) -> int:
        """Entries of the small model's matrices."""
        return sum(int(m.present.sum()) for m in self.matrices)


@dataclass(frozen=True)
class Layer:
    """An attention and the FFN after it (either may be missing)."""

    attention: BlockSummary | None
    ffn: BlockSummary | None

    @property
    def blocks(self) -> tuple[BlockSummary, ...]:
        """Those that exist."""
        return tuple(b for b in (self.attention, self.ffn) if b is not None)


@dataclass(frozen=True)
class Summary:
    """All layers, in graph order. ``compiled``: ``present`` comes from a plan; otherwise it is estimated from masks."""

    layers: tuple[Layer, ...]
    compiled: bool

    @property
    def blocks(self) -> tuple[BlockSummary, ...]:
        """All attentions and FFNs."""
        return tuple(block for layer in self.layers for block in layer.blocks)


def summarize(graph: fx.GraphModule, masks: Mapping[str, Tensor] | None, plan: PlanData | None = None) -> Summary:
    """Count what ``masks`` prune of ``graph``.

    Parameters
    ----------
    graph: the dense, traced graph (`passes.trace`), before shrinking.
    masks: {parameter name: bool, True = kept}; None reads the zeros of the weights.
    plan: `passes.ShrinkResult.plan`. Without it, a head is taken to go when its values or its output columns are all
        pruned, an FFN dim when its row or its column is.
    """
    roles = find_roles(graph)
    cuts = {cut.parameter: cut for cut in plan.cuts} if plan is not None else None
    tiles = {block.name: block.tiles for block in roles.blocks}
    blocks = [
        _block(block_id, linears, graph, masks, cuts, tiles[block_id])
        for block_id, linears in _by_block(roles)
        if any(_in_a_layer(linear) or linear.weight in (masks or {}) for linear in linears)
    ]
    return Summary(tuple(_layers(blocks)), plan is not None)


def _in_a_layer(linear: LinearRole) -> bool:
    """A pooler or classification head (role "mlp.*") is no layer: it shows only where a rule masks it."""
    return linear.role.family is not Family.MLP


def _by_block(roles: Roles) -> Iterator[tuple[str, list[LinearRole]]]:
    found: dict[str, list[LinearRole]] = {}
    for linear in roles:
        if linear.block_id is not None:
            found.setdefault(linear.block_id, []).append(linear)
    yield from found.items()


def _block(
    block_id: str,
    linears: list[LinearRole],
    graph: fx.GraphModule,
    masks: Mapping[str, Tensor] | None,
    cuts: Mapping[str, Cut] | None,
    tiles: int,
) -> BlockSummary:
    kept = [_oriented(_mask(linear, graph, masks), linear) for linear in linears]
    inner = [Inner(m.role.part, k.any(0), m.heads, _tiles(m, tiles)) for m, k in zip(linears, kept, strict=True)]
    alive = live_units(inner)
    if alive is None:  # nothing but a query and a key
        alive = torch.ones(1, dtype=torch.bool)
    if cuts is None:
        present = [
            _spread(alive, mask.shape[1], _tiles(linear, tiles)).expand_as(mask)
            for linear, mask in zip(linears, kept, strict=True)
        ]
    else:
        present = [_present(linear, mask, cuts) for linear, mask in zip(linears, kept, strict=True)]
    matrices = tuple(Matrix(*parts) for parts in zip(linears, kept, present, strict=True))
    return BlockSummary(block_id, matrices, _units_left(matrices, alive), alive.numel())


def _mask(linear: LinearRole, graph: fx.GraphModule, masks: Mapping[str, Tensor] | None) -> Tensor:
    names = linear.names or (linear.weight,)
    if masks is None:
        return graph.get_parameter(linear.weight).detach() != 0
    found = next((masks[name] for name in names if name in masks), None)
    return found.bool().cpu() if found is not None else torch.ones(linear.shape, dtype=torch.bool)


def _oriented(mask: Tensor, linear: LinearRole) -> Tensor:
    """(hidden, inner): inner features are the outputs of the matrices into a block, the inputs of the one out of it."""
    inner = 1 - linear.out_dim if linear.role.leaves else linear.out_dim
    return mask if inner == 1 else mask.t()


def _tiles(linear: LinearRole, tiles: int) -> int:
    return tiles if linear.role.part is Part.GATE_UP else 1


def _spread(alive: Tensor, inner: int, tiles: int) -> Tensor:
    """Units over the inner features of one matrix (grouped keys and values have fewer, a fused gate and up twice)."""
    if tiles > 1:
        return alive.repeat(tiles)
    if inner % alive.numel() == 0:
        return alive.repeat_interleave(inner // alive.numel())
    return torch.ones(inner, dtype=torch.bool)


def _present(linear: LinearRole, kept: Tensor, cuts: Mapping[str, Cut]) -> Tensor:
    cut = next((cuts[name] for name in (linear.weight, *linear.names) if name in cuts), None)
    stored = torch.ones(linear.shape, dtype=torch.bool)
    for dim, keep in (cut.keep if cut is not None else {}).items():
        stays = torch.zeros(linear.shape[dim], dtype=torch.bool)
        stays[list(keep)] = True
        stored &= stays.unsqueeze(1 - dim)
    return _oriented(stored, linear)


def _units_left(matrices: tuple[Matrix, ...], alive: Tensor) -> int:
    """Heads or dims the small model has; a block that died keeps one zero index in its modules, which is none."""
    way_out = [m for m in matrices if m.role.role.leaves]
    way_in = [m for m in matrices if m not in way_out and m.role.role.part not in (Part.QUERY, Part.KEY, Part.QK)]
    for group in (way_in, way_out):
        if group and not any(bool((m.kept & m.present).any()) for m in group):
            return 0
    if not way_out:
        return int(alive.sum())
    inner = way_out[0].present.any(0)
    heads = way_out[0].heads
    return int(inner.view(heads, -1).any(1).sum()) if heads else int(inner.sum())


def _layers(blocks: list[BlockSummary]) -> Iterator[Layer]:
    pending: BlockSummary | None = None
    for block in blocks:
        if block.is_attention:
            if pending is not None:
                yield Layer(pending, None)
            pending = block
        else:
            yield Layer(pending, block)
            pending = None
    if pending is not None:
        yield Layer(pending, None)
