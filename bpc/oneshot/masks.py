"""What was chosen, as the masks that `passes.shrink` takes: columns of the linears that leave blocks, rows of narrow
queries and keys with their biases. Everything else follows in the compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from bpc.oneshot.heads import Heads
from bpc.oneshot.sublayers import Sublayer
from passes.ir.graph import get_attribute
from passes.rewrite.turn_heads import HeadFeatures

if TYPE_CHECKING:
    from bpc.oneshot.ladder import Ladder
    from bpc.oneshot.search import Selection


def columns_mask(graph: fx.GraphModule, sublayer: Sublayer, features: Tensor) -> Tensor:
    """The mask of a sublayer's weight, as stored, that keeps ``features``, or units, of its input (bool); a view that
    takes no more memory than they do."""
    features = features if len(features) == sublayer.features else features.repeat_interleave(sublayer.size)
    mask = features if sublayer.out_dim == 0 else features[:, None]
    return mask.expand(tuple(get_attribute(graph, sublayer.weight).shape))


def kept_features(sublayer: Sublayer, ladder: Ladder, selection: Selection, heads: Heads | None) -> Tensor:
    """bool (features): the input features of a sublayer's weight that stay, in the turned basis of its heads."""
    kept = ladder.kept(selection.kept[sublayer.name]).repeat_interleave(sublayer.size)
    width = selection.widths.get(sublayer.name)
    if width is not None and heads is not None and heads.output is not None:
        kept[heads.output.index[:, width.values :].flatten()] = False
    return kept


def masks_of(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    ladders: Mapping[str, Ladder],
    selection: Selection,
    heads: Mapping[str, Heads],
) -> dict[str, Tensor]:
    """{weight or bias: mask}, of those that lose anything."""
    masks: dict[str, Tensor] = {}
    for sublayer in sublayers:
        own = heads.get(sublayer.name)
        features = kept_features(sublayer, ladders[sublayer.name], selection, own)
        if not features.all():
            masks[sublayer.weight] = columns_mask(graph, sublayer, features)
        width = selection.widths.get(sublayer.name)
        if width is not None and own is not None:
            narrow_keys(graph, own, width.keys, masks)
    return masks


def narrow_keys(graph: fx.GraphModule, heads: Heads, dims: int, masks: dict[str, Tensor]) -> None:
    """Add to ``masks`` those of queries and keys with ``dims`` of each head."""
    for features in (heads.query, heads.key):
        if features is not None and dims < features.dims:
            _drop(graph, features, dims, masks)


def _drop(graph: fx.GraphModule, features: HeadFeatures, dims: int, masks: dict[str, Tensor]) -> None:
    gone = features.index[:, dims:].flatten()
    for name, dim in ((features.weight, features.dim), (features.bias, 0)):
        if name is not None:
            whole = torch.ones(tuple(get_attribute(graph, name).shape), dtype=torch.bool)
            masks[name] = masks.get(name, whole).index_fill(dim, gone, False)
