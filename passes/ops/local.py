"""Operators that mix entries along some dims and keep the others: pooling, upsampling, differences, padding.

constant  nothing; padding keeps a constant where it pads with the same number, or does not pad
live      everything along the mixed dims, if any result is
ties      mixed dims are pinned, the others are the same
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.facts import Fact, any_over, fact_shape, make_fact, nothing_constant
from passes.ops.rule import Live, Rule

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties

aten = torch.ops.aten
Dims = Callable[[fx.Node], Sequence[int]]


def last_dims(count: int) -> Dims:
    """The trailing dims: the positions of pooling and upsampling."""
    return lambda node: range(len(shape_of(node)) - count, len(shape_of(node)))


def diff_dim(node: fx.Node) -> Sequence[int]:
    dim: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", -1)
    return [dim % len(shape_of(node))]


def _nothing(node: fx.Node, constants: Constants) -> Fact:
    fake = tensor_of(node)
    assert fake is not None
    return nothing_constant(fact_shape(node), fake.dtype)


def local_rule(name: str, dims_of: Dims, tabular: bool = False) -> Rule:
    def live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
        spread = any_over(live_out, dims_of(node))
        return {source: spread.expand(fact_shape(source)) for source in tensor_inputs(node)}

    def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
        mixed = set(dims_of(node))
        ties.pin(node, sorted(mixed), f"mixed by {name}")
        for source in tensor_inputs(node):
            ties.pin(source, sorted(mixed), f"mixed by {name}")
            for d in range(len(shape_of(node))):
                if d not in mixed:
                    ties.same(ties.axis(source, d), ties.axis(node, d))

    return Rule(name, _nothing, live, ties, tabular)


DIFF = local_rule("a difference", diff_dim, tabular=True)
POOL_1D = local_rule("pooling", last_dims(1))
POOL_2D = local_rule("pooling", last_dims(2))
UPSAMPLE_2D = local_rule("upsampling", last_dims(2), tabular=True)


# -------------------------------------------------------------------------------------------------------- padding


def _widths(node: fx.Node) -> dict[int, tuple[Any, Any]]:
    """{dim: (before, after)} of constant_pad_nd and pad, dims that are not padded left out."""
    pads = node.args[1]
    assert isinstance(pads, list | tuple)
    rank = len(shape_of(node))
    found = {rank - 1 - i: (pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2)}
    return {d: pair for d, pair in found.items() if pair != (0, 0)}


def _fill(node: fx.Node) -> float | None:
    """The number padded with; None for reflecting and replicating modes."""
    if node.target is aten.constant_pad_nd.default:
        value: Any = node.args[2] if len(node.args) > 2 else 0.0
        return float(value)
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    return (0.0 if value is None else float(value)) if mode == "constant" else None


def _pad_constant(node: fx.Node, constants: Constants) -> Fact:
    source, fill, widths = tensor_inputs(node)[0], _fill(node), _widths(node)
    fact = constants.fact(source)
    if not bool(fact.const.any()) or fill is None:
        return _nothing(node, constants)
    literal = [(d, pair) for d, pair in widths.items() if isinstance(shape_of(node)[d], int)]
    if any(not isinstance(width, int) for _, pair in literal for width in pair):
        return _nothing(node, constants)
    const, value = fact.const, fact.value
    if any(not isinstance(shape_of(node)[d], int) for d in widths):
        const = const & (value == fill)
    flat = [0] * (2 * const.dim())
    for d, (before, after) in literal:
        flat[2 * (const.dim() - 1 - d)], flat[2 * (const.dim() - 1 - d) + 1] = before, after
    const = torch.constant_pad_nd(const.to(torch.int8), flat, 1).bool()
    return make_fact(const.expand(fact_shape(node)), torch.constant_pad_nd(value, flat, fill).expand(fact_shape(node)))


def _pad_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    source = tensor_inputs(node)[0]
    for d in _widths(node):
        live_out = any_over(live_out, [d])
    return {source: live_out.expand(fact_shape(source))}


def _pad_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source, padded = tensor_inputs(node)[0], sorted(_widths(node))
    for value in (source, node):
        ties.pin(value, padded, "padded")
    for d in range(len(shape_of(node))):
        if d not in padded:
            ties.same(ties.axis(source, d), ties.axis(node, d))


PAD = Rule("padding", _pad_constant, _pad_live, _pad_ties, tabular=True)
