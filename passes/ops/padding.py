"""Padding: pad(x)[i] = x[i] inside, the fill number outside.

constant  where the channel is, if it pads with the same number or does not pad that dim with data
live      a padded dim is read whole, if any result is
ties      padded dims are pinned, the others are the same
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from passes.ir.sizes import is_static, shape_of
from passes.ops.arguments import argument, first_argument
from passes.ops.facts import Fact, any_over, fact_shape, make_fact
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.structural import tie_other_dims
from passes.ops.ties import Ties
from passes.ops.unknown import unknown_constant

aten = torch.ops.aten


def _widths(node: fx.Node) -> dict[int, tuple[Any, Any]]:
    """{dim: (before, after)}, dims that are not padded left out."""
    pads = argument(node, "pad")
    rank = len(shape_of(node))
    found = {rank - 1 - i: (pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2)}
    return {d: pair for d, pair in found.items() if pair != (0, 0)}


def _fill(node: fx.Node) -> float | None:
    """The number padded with; None for reflecting and replicating modes, and for computed numbers."""
    if argument(node, "mode") not in (None, "constant"):
        return None
    value = argument(node, "value")
    return 0.0 if value is None else float(value) if isinstance(value, int | float) else None


def _constant(node: fx.Node, facts: Facts) -> Fact:
    fill, widths, shape = _fill(node), _widths(node), shape_of(node)
    fact = facts.fact(first_argument(node))
    if not bool(fact.const.any()) or fill is None:
        return unknown_constant(node, facts)
    literal = {d: pair for d, pair in widths.items() if is_static(shape[d])}
    if any(not isinstance(width, int) for pair in literal.values() for width in pair):
        return unknown_constant(node, facts)
    const, value = fact.const, fact.value
    if any(not is_static(shape[d]) for d in widths):
        const = const & (value == fill)
    flat = [0] * (2 * const.dim())
    for d, (before, after) in literal.items():
        flat[2 * (const.dim() - 1 - d)], flat[2 * (const.dim() - 1 - d) + 1] = before, after
    const = torch.constant_pad_nd(const, flat, True)
    return make_fact(const.expand(fact_shape(node)), torch.constant_pad_nd(value, flat, fill).expand(fact_shape(node)))


def _live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    source = first_argument(node)
    return {source: any_over(live_out, _widths(node)).expand(fact_shape(source))}


def _ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, padded = first_argument(node), sorted(_widths(node))
    for value in (source, node):
        ties.pin(value, padded, "padded")
    tie_other_dims(node, source, padded, ties)


PAD = Rule("padding", _constant, _live, _ties, kind=Kind.VIEW, tabular=True)

RULES = dict.fromkeys((aten.constant_pad_nd.default, aten.pad.default), PAD)
