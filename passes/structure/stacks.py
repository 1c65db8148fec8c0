"""Encoder and decoder of a model with cross-attention, told apart by data flow.

An attention is cross-attention when its queries and its keys are not computed from the same residual stream. What the
keys read is the encoder. The decoder is what the queries read and the keys do not, and all that follows the attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import fx

from passes.ir.graph import ancestors, descendants
from passes.ir.sizes import carrying_inputs
from passes.ops.rule import Kind
from passes.ops.table import kind_of
from passes.structure.blocks import Block
from passes.structure.reach import Reach
from passes.structure.role import Family, Part
from passes.structure.weight_uses import WeightUse


def find_stacks(
    blocks: Iterable[Block], sources: Mapping[fx.Node, Reach], uses: Mapping[fx.Node, WeightUse]
) -> dict[str, str]:
    """{block name: "encoder" or "decoder"}; empty where there is no cross-attention."""
    blocks = list(blocks)
    encoder: set[fx.Node] = set()
    decoder: set[fx.Node] = set()
    for block in blocks:
        if block.family is not Family.ATTENTION:
            continue
        queries, keys = block.parts[Part.QUERY], block.parts[Part.KEY]
        if not queries or not keys:
            continue
        queried = [uses[node].input for node in queries]
        attended = [uses[node].input for node in keys]
        streams = _streams(queried, sources, uses)
        if not streams or streams & _streams(attended, sources, uses):
            continue  # learned queries (attention pooling), or self-attention
        behind_keys = ancestors(attended)
        encoder |= behind_keys
        decoder |= (ancestors(queried) - behind_keys) | set(queries) | descendants(queries)
    return {
        block.name: "decoder" if block.nodes & decoder else "encoder"
        for block in blocks
        if block.nodes & (decoder | encoder)
    }


_LOOKED_THROUGH = frozenset(
    {Kind.VIEW, Kind.NORM, Kind.REDUCTION, Kind.CONVOLUTION, Kind.POINTWISE, Kind.PRODUCT, Kind.GATE}
)


def _streams(
    nodes: Iterable[fx.Node], sources: Mapping[fx.Node, Reach], uses: Mapping[fx.Node, WeightUse]
) -> set[fx.Node]:
    """The nearest residual sums, embeddings and the like behind ``nodes``, through norms, linears, convs
    and views. Empty where ``nodes`` depend on parameters only."""
    found: set[fx.Node] = set()
    seen = set(nodes)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if node in uses:
            inputs = [uses[node].input]
        elif sources[node].constant:
            continue
        elif kind_of(node) in _LOOKED_THROUGH:
            inputs = [n for n in carrying_inputs(node) if not sources[n].constant]
        elif kind_of(node) is Kind.SUM:
            inputs = [n for n in carrying_inputs(node) if not sources[n].constant]
            inputs = inputs if len(inputs) == 1 else []
        else:
            inputs = []
        if not inputs:
            found.add(node)
        fresh = [n for n in inputs if n not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return found
