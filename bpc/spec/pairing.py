"""Paired rules: which weights share one score per FFN dim, or per head.

    FFN        row i of up (and gate) and column i of down share score i
    attention  the rows of head h in query, key and value and the columns of head h in output share score h

Layers that share a weight (ALBERT) share its scores: blocks with a weight in common form one pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from bpc.spec.errors import SpecError
from bpc.spec.schema import Rule
from passes.structure.role import Part
from passes.structure.roles import LinearRole, Roles


@dataclass(frozen=True)
class Pair:
    """A weight's part in a pair: the score key, whether its columns are cut (not its rows), how often scores repeat."""

    scores: str
    by_columns: bool
    tiles: int


def pair_up(
    rule: Rule, members: Sequence[LinearRole], blocks: Mapping[str, tuple[int, int]], roles: Roles
) -> dict[str, Pair]:
    """{weight: its `Pair`} for the weights a paired rule covers; ``blocks`` are (output, input) block sizes.

    Raises `SpecError` for weights that cannot share scores.
    """
    by_weight = {r.weight: r for r in members}
    graph = nx.Graph()
    graph.add_nodes_from(by_weight)
    tiles: dict[str, int] = {}
    for block in roles.blocks:
        present = [w for w in block.weights if w in by_weight]
        nx.add_path(graph, present)
        tiles.update({w: block.tiles for w in present if by_weight[w].role.part is Part.GATE_UP})
    pairs = {}
    for component in nx.connected_components(graph):
        group = [r for r in members if r.weight in component]
        key = group[0].block_id or group[0].weight
        counts = {}
        for role in group:
            by_columns = role.role.leaves
            _check_span(rule, role, blocks[role.weight], by_columns)
            features = role.in_features if by_columns else role.out_features
            repeat = tiles.get(role.weight, 1)
            size = blocks[role.weight][1 if by_columns else 0]
            counts[role.weight] = features // (size * repeat)
            pairs[role.weight] = Pair(key, by_columns, repeat)
        if len(set(counts.values())) > 1:
            listing = ", ".join(f"{weight}: {count}" for weight, count in counts.items())
            raise SpecError(
                f"paired rule on roles {list(rule.roles)}: these weights cannot share scores, for they have different "
                f"numbers of blocks ({listing}). Use a rule without `paired` for them."
            )
    return pairs


def _check_span(rule: Rule, role: LinearRole, block: tuple[int, int], by_columns: bool) -> None:
    whole, size = (role.out_features, block[0]) if by_columns else (role.in_features, block[1])
    if whole != size:
        raise SpecError(
            f"paired rule on roles {list(rule.roles)}: its block must span whole rows, e.g. [1, 'in_features']; for "
            f"{role.weight} ({role.role}) it covers {size} of {whole}."
        )
