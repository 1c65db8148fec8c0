"""Kinds of masks for the suite: {parameter name: bool tensor, True = kept}, drawn from a fixed seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from tests.passes.families import Family
from tests.passes.family_structure import Attention, FeedForward, Parameters, Part

Masks = dict[str, torch.Tensor]


class Draft:
    """Masks in the making; parts of one weight are views of its mask."""

    def __init__(self, parameters: Parameters, seed: int = 0) -> None:
        self.parameters = parameters
        self.masks: Masks = {}
        self.generator = torch.Generator().manual_seed(seed)

    def of(self, part: Part) -> torch.Tensor:
        """The mask of a part, (out features, in features), to write to."""
        mask = self._mask(part.weight).flatten(1)
        mask = mask if part.out_dim == 0 else mask.t()
        return mask[part.start :][: part.size]

    def bias(self, part: Part) -> torch.Tensor | None:
        if part.bias is None or part.bias not in self.parameters:
            return None
        return self._mask(part.bias)[part.start :][: part.size]

    def random(self, *shape: int, keep: float) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator) < keep

    def kill_rows(self, part: Part, rows: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Mask output features, and those of their biases that ``bias`` marks too."""
        self.of(part)[rows] = False
        found = self.bias(part)
        if found is not None and bias is not None:
            found[rows & bias] = False

    def _mask(self, name: str) -> torch.Tensor:
        return self.masks.setdefault(name, torch.ones(self.parameters[name].shape, dtype=torch.bool))


def heads(draft: Draft, family: Family) -> None:
    """Whole heads: one by its values, one by its output columns; one empty query head, which has to stay."""
    for layer, unit in enumerate(family.attention):
        group = unit.heads // unit.kv_heads
        dims = len(unit.output.rows(draft.parameters)[0]) // unit.heads
        dead_value, dead_output = layer % unit.kv_heads, (layer % unit.kv_heads * group + group) % unit.heads
        left = [h for h in range(unit.heads) if h // group != dead_value and h != dead_output]
        values = torch.arange(unit.kv_heads).repeat_interleave(dims) == dead_value
        draft.kill_rows(unit.value, values, draft.random(len(values), keep=0.5))
        draft.of(unit.output)[:, dead_output * dims : (dead_output + 1) * dims] = False
        size = len(unit.query.rows(draft.parameters)) // unit.heads
        if len(left) > 1:  # its scores are constant: a mean of the values
            draft.of(unit.query)[left[-1] * size : (left[-1] + 1) * size] = False
    for feed in family.feed_forward:
        _dead_units(draft, feed)


def _dead_units(draft: Draft, feed: FeedForward) -> None:
    """Some units by their first rows (with or without bias), some by their second columns."""
    units = len(feed.up.rows(draft.parameters))
    first = draft.random(units, keep=0.4)
    for part in (feed.up, feed.gate):
        if part is not None:
            draft.kill_rows(part, first, draft.random(units, keep=0.5))
    draft.of(feed.down)[:, draft.random(units, keep=0.3)] = False


def rows(draft: Draft, family: Family) -> None:
    """Random rows and columns of every matrix, half of the dead rows' biases masked too."""
    for part in _parts(family):
        out_features, in_features = draft.of(part).shape
        draft.kill_rows(part, draft.random(out_features, keep=0.4), draft.random(out_features, keep=0.5))
        draft.of(part)[:, draft.random(in_features, keep=0.3)] = False


def blocks(draft: Draft, family: Family) -> None:
    """Random blocks of 2 rows x (half the columns): ragged heads, half-empty matrices; biases kept."""
    for part in _parts(family):
        out_features, in_features = draft.of(part).shape
        kept = draft.random(-(-out_features // 2), 2, keep=0.45)
        grid = kept.repeat_interleave(2, 0).repeat_interleave(-(-in_features // 2), 1)
        draft.of(part)[:] &= grid[:out_features, :in_features]


def layer(draft: Draft, family: Family) -> None:
    """Everything in the first attention and the last feed-forward network; its biases kept."""
    units: list[Attention | FeedForward] = [*family.attention[:1], *family.feed_forward[-1:]]
    for unit in units:
        for part in unit.parts:
            draft.of(part)[:] = False


def nothing(draft: Draft, family: Family) -> None:
    """All entries kept."""


KINDS: Mapping[str, Callable[[Draft, Family], None]] = {
    "heads": heads,
    "rows": rows,
    "blocks": blocks,
    "layer": layer,
    "nothing": nothing,
}


def draw(kind: str, family: Family, parameters: Parameters, seed: int = 0) -> Masks:
    draft = Draft(parameters, seed)
    KINDS[kind](draft, family)
    return draft.masks


def masked(parameters: Parameters, masks: Masks) -> dict[str, torch.Tensor]:
    return {n: p.detach() * masks[n] if n in masks else p.detach() for n, p in parameters.items()}


def _parts(family: Family) -> list[Part]:
    return [p for unit in (*family.attention, *family.feed_forward) for p in unit.parts]
