"""Paired rules: which features of which weights share one score.

    FFN                          row i of up (and gate) and column i of down share score i
    attention, whole heads       the rows of head h in query, key and value and the columns of head h in output
    attention, dims of a head    row d of query and row d of key; row d of value and column d of output

Where the features lie is read off the graph (`passes.structure.head_places`). What several units have in common makes
one unit of them: query heads that share a key and value head, dims that rotate into each other, layers that share a
weight (ALBERT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor

from bpc.spec.errors import SpecError
from bpc.spec.schema import Rule
from passes.structure.blocks import Block
from passes.structure.head_places import HeadPlaces, head_places
from passes.structure.role import Family, Part
from passes.structure.roles import LinearRole, Roles

_SCORED, _MIXED = (Part.QUERY, Part.KEY), (Part.VALUE, Part.OUTPUT)


@dataclass(frozen=True)
class Pair:
    """A weight's part in a pair.

    ``scores``: the key of the shared tensor, which has ``count`` entries. ``by_columns``: its columns are cut, not its
    rows. ``units``: for each of its blocks of ``block`` rows (columns) the entry of the scores, -1 for none.
    ``stretches``: see `bpc.scores.plan.MaskPlan.stretches`.
    """

    scores: str
    by_columns: bool
    block: int
    units: tuple[int, ...]
    count: int
    stretches: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class _Place:
    """Features of a weight and the units, of one block, that they belong to: two int64 tensors of one length."""

    weight: str
    features: Tensor
    units: Tensor


@dataclass(frozen=True)
class _Layout:
    """The units of one block: how many, where, and (start, heads, dims) of those that are dims inside heads."""

    count: int
    places: tuple[_Place, ...]
    stretches: tuple[tuple[int, int, int], ...] = ()


def pair_up(
    rule: Rule, members: Sequence[LinearRole], blocks: Mapping[str, tuple[int, int]], roles: Roles
) -> dict[str, Pair]:
    """{weight: its `Pair`} for the weights a paired rule covers; ``blocks`` are (output, input) block sizes.

    Weights that no unit has a feature of are left out. Raises `SpecError` for weights that cannot share scores.
    """
    by_weight = {r.weight: r for r in members}
    sizes = {w: _size(rule, role, blocks[w]) for w, role in by_weight.items()}
    attention = any(r.role.family is Family.ATTENTION for r in members)
    places = head_places(roles) if attention else {}
    graph = nx.Graph()
    layouts = {}
    for block in roles.blocks:
        present = [by_weight[w] for w in block.weights if w in by_weight and by_weight[w].role.part is not None]
        if present:
            layouts[block.name] = _layout(rule, block, present, sizes, places.get(block.name))
            nx.add_path(graph, [block.name, *(r.weight for r in present)])
    for role in members:
        if role.weight not in graph:  # in no block: it shares its scores with nothing
            rows = torch.arange(role.out_features)
            place = _Place(role.weight, rows, rows // sizes[role.weight])
            layouts[role.weight] = _Layout(role.out_features // sizes[role.weight], (place,))
            graph.add_node(role.weight)
    pairs = {}
    for component in nx.connected_components(graph):
        own = [layout for name, layout in layouts.items() if name in component]
        group = [r for r in members if r.weight in component]
        pairs.update(_joined(group[0].block_id or group[0].weight, own, group, sizes))
    if members and not pairs:
        raise SpecError(
            f"paired rule on roles {list(rule.roles)}: none of the dims can go, for normalisations inside heads "
            "compute each of them from all others. Use whole heads, ['head_dim', 'in_features']."
        )
    return pairs


def _size(rule: Rule, role: LinearRole, block: tuple[int, int]) -> int:
    """How many of a weight's features a block has."""
    by_columns = role.role.leaves
    whole, size = (role.out_features, block[0]) if by_columns else (role.in_features, block[1])
    if whole != size:
        raise SpecError(
            f"paired rule on roles {list(rule.roles)}: its block must span whole rows, e.g. [1, 'in_features']; for "
            f"{role.weight} ({role.role}) it covers {size} of {whole}."
        )
    size = block[1 if by_columns else 0]
    features = role.in_features if by_columns else role.out_features
    if features % size:
        raise SpecError(
            f"paired rule on roles {list(rule.roles)}: blocks of {size} do not divide the {features} "
            f"{'input' if by_columns else 'output'} features of {role.weight} ({role.role})."
        )
    return size


def _layout(
    rule: Rule,
    block: Block,
    present: Sequence[LinearRole],
    sizes: Mapping[str, int],
    places: tuple[HeadPlaces, ...] | None,
) -> _Layout:
    if block.family is not Family.ATTENTION:
        return _dims(rule, block, present, sizes)
    weights = {r.weight for r in present}
    own = [p for p in places or _in_order(rule, present) if p.weight in weights]
    whole = {p.part: sizes[p.weight] / p.index.shape[2] for p in own}
    if len({*whole.values()}) == 1 and next(iter(whole.values())).is_integer():
        return _whole_heads(own, int(next(iter(whole.values()))))
    if any(p.index.shape[2] % sizes[p.weight] for p in own):
        listing = ", ".join(f"{p.weight} ({p.part}): {p.index.shape[2]}" for p in own)
        raise SpecError(
            f"paired rule on roles {list(rule.roles)}: a block of {next(iter(sizes.values()))} features is neither "
            f"whole heads of all its weights nor divides their heads ({listing})."
        )
    return _dims_of_heads(own, sizes)


def _dims(rule: Rule, block: Block, present: Sequence[LinearRole], sizes: Mapping[str, int]) -> _Layout:
    tables = {}
    for role in present:
        tiles = block.tiles if role.role.part is Part.GATE_UP else 1
        features = role.in_features if role.role.leaves else role.out_features
        dims = torch.arange(features // tiles) // sizes[role.weight]
        tables[role.weight] = dims.repeat(tiles)
    counts = {weight: int(table.max()) + 1 for weight, table in tables.items()}
    if len(set(counts.values())) > 1:
        listing = ", ".join(f"{weight}: {count}" for weight, count in counts.items())
        raise SpecError(
            f"paired rule on roles {list(rule.roles)}: these weights cannot share scores, for they have different "
            f"numbers of blocks ({listing}). Use a rule without `paired` for them."
        )
    places = tuple(_Place(w, torch.arange(len(table)), table) for w, table in tables.items())
    return _Layout(next(iter(counts.values())), places)


def _in_order(rule: Rule, present: Sequence[LinearRole]) -> list[HeadPlaces]:
    """Heads one after the other, where the graph does not say: certain only of weights with one operand."""
    found = []
    heads = max((r.heads for r in present if r.heads), default=0)
    for role in present:
        features = role.in_features if role.role.leaves else role.out_features
        fused = role.role.part is None or len(role.role.part.members) > 1
        if fused or not role.heads or heads % role.heads:
            raise SpecError(
                f"paired rule on roles {list(rule.roles)}: where the heads of {role.weight} ({role.role}) lie "
                "cannot be read off the graph. Use a rule without `paired` for it."
            )
        assert role.role.part is not None
        index = torch.arange(features).view(1, role.heads, -1).repeat_interleave(heads // role.heads, 1)
        found.append(HeadPlaces(role.weight, role.role.part, index))
    return found


def _whole_heads(places: Sequence[HeadPlaces], together: int) -> _Layout:
    """Units of ``together`` heads. Keys and values that all heads read go when nobody reads them: they have no part."""
    heads = places[0].index.shape[1]
    unit = (torch.arange(heads) // together)[None, :, None]
    own = [p for p in places if heads == 1 or p.part not in (Part.KEY, Part.VALUE) or not _same_for_all(p.index)]
    return _Layout(int(unit.max()) + 1, tuple(_placed(p, unit) for p in own))


def _same_for_all(index: Tensor) -> bool:
    return bool((index == index[:, :1]).all())


def _dims_of_heads(places: Sequence[HeadPlaces], sizes: Mapping[str, int]) -> _Layout:
    found: list[_Place] = []
    stretches = []
    start = 0
    for parts in (_SCORED, _MIXED):
        own = [p for p in places if p.part in parts]
        if not own or any(p.mixed for p in own):
            continue
        heads, dims = own[0].index.shape[1], own[0].index.shape[2] // sizes[own[0].weight]
        if any(p.index.shape[0] > 1 for p in own):  # rotated, by angles that all heads share: all lose the same dims
            heads = 1
        for p in own:
            chunk = torch.arange(p.index.shape[2]) // sizes[p.weight]
            unit = start + torch.arange(p.index.shape[1])[:, None] % heads * dims + chunk
            found.append(_placed(p, unit[None]))
        stretches.append((start, heads, dims))
        start += heads * dims
    return _Layout(start, tuple(found), tuple(stretches))


def _placed(places: HeadPlaces, unit: Tensor) -> _Place:
    some = places.index >= 0
    return _Place(places.weight, places.index[some], unit.expand(places.index.shape)[some])


def _joined(
    key: str, layouts: Sequence[_Layout], members: Sequence[LinearRole], sizes: Mapping[str, int]
) -> dict[str, Pair]:
    """Units that have a feature in common become one, numbered as they come."""
    start, total = {}, 0
    for role in members:
        start[role.weight], total = total, total + (role.in_features if role.role.leaves else role.out_features)
    features, units, before = [], [], 0
    for layout in layouts:
        features += [place.features + start[place.weight] for place in layout.places]
        units += [place.units + before for place in layout.places]
        before += layout.count
    if not features:
        return {}
    least, of_feature = _components(torch.cat(units), torch.cat(features), before, total)
    present, number = least.unique(return_inverse=True)
    of_feature = torch.where(of_feature < before, number[of_feature.clamp(max=before - 1)], -1)
    first = layouts[0]
    stretches = tuple(_numbered(number[s : s + heads * dims].view(heads, dims)) for s, heads, dims in first.stretches)
    pairs = {}
    for role in members:
        by_columns = role.role.leaves
        length = role.in_features if by_columns else role.out_features
        own = of_feature[start[role.weight] : start[role.weight] + length].view(-1, sizes[role.weight])
        if bool((own < 0).all()):
            continue
        even = bool((own == own[:, :1]).all())
        table = own[:, 0] if even else own.flatten()
        block = sizes[role.weight] if even else 1
        pairs[role.weight] = Pair(key, by_columns, block, tuple(table.tolist()), len(present), stretches)
    return pairs


def _components(units: Tensor, features: Tensor, count: int, total: int) -> tuple[Tensor, Tensor]:
    """The least unit that each unit, and each feature, hangs together with; ``count`` for features of none."""
    least = torch.arange(count)
    while True:
        of_feature = torch.full((total,), count).scatter_reduce(0, features, least[units], "amin")
        joined = least.scatter_reduce(0, units, of_feature[features], "amin")
        if torch.equal(joined, least):
            return least, of_feature
        least = joined


def _numbered(table: Tensor) -> tuple[int, int, int]:
    """(first, heads, dims) of units (heads, dims), of which heads that share everything are one."""
    rows = table.unique(dim=0)
    return int(rows.min()), rows.shape[0], rows.unique().numel() // rows.shape[0]
