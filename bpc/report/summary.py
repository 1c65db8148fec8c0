"""What was pruned, layer by layer: counted from masks, structural roles and (if the model was compiled) the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx

from bpc.report.layers import BlockSummary, Layer, Matrix, Summary
from bpc.scores.live import Inner, live_units
from passes.plan.data import Cut, PlanData
from passes.structure.blocks import Block
from passes.structure.role import Family, Part
from passes.structure.roles import LinearRole, Roles, find_roles
from passes.structure.weight_uses import weight_uses


def summarize(graph: fx.GraphModule, masks: Mapping[str, Tensor] | None, plan: PlanData | None = None) -> Summary:
    """Count what ``masks`` prune of ``graph``.

    Args:
        graph: the dense, traced graph (`passes.trace`), before shrinking.
        masks: {parameter name: bool, True = kept}; None reads the zeros of the weights.
        plan: `passes.ShrinkResult.plan`. Without it, a head is taken to go when its values or its output columns are
            all pruned, an FFN dim when its row or its column is.
    """
    roles = find_roles(graph)
    cuts = {cut.parameter: cut for cut in plan.cuts} if plan is not None else None
    by_name = {block.name: block for block in roles.blocks}
    inputs = {node: use.input for node, use in weight_uses(graph).items()}
    blocks = [
        _block(linears, graph, masks, cuts, by_name[name], _is_cross(linears, by_name[name], inputs))
        for name, linears in _by_block(roles)
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


def _is_cross(linears: list[LinearRole], block: Block, inputs: Mapping[fx.Node, fx.Node]) -> bool:
    """In a decoder, queries are computed from another value than keys; one weight may hold both (nn.Transformer)."""
    queries, keys = ({inputs[node] for node in block.parts.get(part, ())} for part in (Part.QUERY, Part.KEY))
    return linears[0].stack == "decoder" and bool(queries and keys) and queries.isdisjoint(keys)


def _block(
    linears: list[LinearRole],
    graph: fx.GraphModule,
    masks: Mapping[str, Tensor] | None,
    cuts: Mapping[str, Cut] | None,
    block: Block,
    cross: bool,
) -> BlockSummary:
    tiles = block.tiles
    kept = [_oriented(_mask(linear, graph, masks), linear) for linear in linears]
    inner = [Inner(m.role.part, k.any(0), m.heads, _tiles(m, tiles)) for m, k in zip(linears, kept, strict=True)]
    alive = live_units(inner)
    if alive is None:  # nothing but a query and a key
        alive = torch.ones(1, dtype=torch.bool)
    if cuts is None:
        present = [
            _spread(alive, linear, mask.shape[1], _tiles(linear, tiles)).expand_as(mask)
            for linear, mask in zip(linears, kept, strict=True)
        ]
    else:
        present = [_present(linear, mask, cuts) for linear, mask in zip(linears, kept, strict=True)]
    matrices = tuple(Matrix(*parts) for parts in zip(linears, kept, present, strict=True))
    left = _left(matrices, alive)
    if not bool(left.any()):  # the graph has none of it; modules keep one zero index
        matrices = tuple(replace(matrix, present=torch.zeros_like(matrix.present)) for matrix in matrices)
    return BlockSummary(block.name, matrices, left, cross)


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


def _spread(alive: Tensor, linear: LinearRole, inner: int, tiles: int) -> Tensor:
    """Units over the inner features of one matrix; grouped keys and values live while a head reads them."""
    if tiles > 1:
        return alive.repeat(tiles)
    if linear.heads and alive.numel() % linear.heads == 0:
        alive = alive.view(linear.heads, -1).any(1)
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


def _left(matrices: tuple[Matrix, ...], alive: Tensor) -> Tensor:
    """(units,) bool: heads or dims the small model has; none of a block whose way in or out is zero."""
    way_out = [m for m in matrices if m.role.role.leaves]
    way_in = [m for m in matrices if m not in way_out and m.role.role.part not in (Part.QUERY, Part.KEY, Part.QK)]
    for group in (way_in, way_out):
        if group and not any(bool((m.kept & m.present).any()) for m in group):
            return torch.zeros_like(alive)
    if not way_out or not bool(alive.any()):
        return alive
    inner = way_out[0].present.any(0)
    heads = way_out[0].heads
    return inner.view(heads, -1).any(1) if heads else inner


def _layers(blocks: list[BlockSummary]) -> Iterator[Layer]:
    """An FFN ends a layer. So does an attention behind another one, unless it is the layer's cross-attention."""
    groups: list[list[BlockSummary]] = []
    for block in blocks:
        before = groups[-1] if groups else None
        same = before is not None and before[0].stack == block.stack and before[-1].is_attention
        if before is not None and same and (block.cross or not block.is_attention):
            before.append(block)
        else:
            groups.append([block])
    counts: dict[str | None, int] = {}
    for group in groups:
        index = counts[group[0].stack] = counts.get(group[0].stack, -1) + 1
        yield Layer(index, tuple(group))
