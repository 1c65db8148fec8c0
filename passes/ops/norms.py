"""Normalisations. What they mix is pinned: a norm over fewer channels is another norm.

constant  where the affine weight is 0: the affine bias; a batch norm in eval mode is an affine function of each channel
live      everything that is normalised together, if any result is; the affine operands where the result is
ties      normalised dims are pinned, affine operands go with the result
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.arguments import argument, first_argument, set_argument, tensor_argument
from passes.ops.facts import Fact, any_over, fact_shape, make_fact, nothing_constant, reduce_to
from passes.ops.rule import Facts, Keeps, Kind, Live, Rule
from passes.ops.ties import Ties
from passes.ops.unknown import unknown_constant

aten = torch.ops.aten


def _affine(node: fx.Node) -> list[fx.Node]:
    return [a for name in ("weight", "bias") if (a := tensor_argument(node, name)) is not None]


def norm_rule(
    name: str,
    dims_of: Callable[[fx.Node], Sequence[int]],
    resize: Callable[[fx.Node, Keeps], None] | None = None,
) -> Rule:
    """A norm over ``dims_of(node)``, whose affine operands (weight, bias) lie along them."""

    def constant(node: fx.Node, facts: Facts) -> Fact:
        fake, shape = tensor_of(node), fact_shape(node)
        weight, bias = tensor_argument(node, "weight"), tensor_argument(node, "bias")
        assert fake is not None
        if weight is None:
            return nothing_constant(shape, fake.dtype)
        dead = facts.fact(weight).zero
        if bias is None:
            return make_fact(dead.expand(shape), torch.zeros((), dtype=fake.dtype).expand(shape))
        shift = facts.fact(bias)
        return make_fact((dead & shift.const).expand(shape), shift.value.expand(shape))

    def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
        source = first_argument(node)
        affine = {a: reduce_to(live_out, fact_shape(a)) for a in _affine(node)}
        return {source: any_over(live_out, dims_of(node)).expand(fact_shape(source)), **affine}

    def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
        source, dims = first_argument(node), list(dims_of(node))
        for d in range(len(shape_of(node))):
            ties.same(ties.axis(source, d), ties.axis(node, d))
        ties.sums_over(node, source, dims, f"normalised by {name}")
        for operand in _affine(node):
            for own, d in enumerate(dims):
                ties.same(ties.axis(operand, own), ties.axis(node, d))

    return Rule(name, constant, live, ties, resize, kind=Kind.NORM)


def trailing_dims(node: fx.Node) -> Sequence[int]:
    """The dims of layer_norm's and rms_norm's normalized_shape."""
    rank = len(shape_of(node))
    return range(rank - len(argument(node, "normalized_shape")), rank)


def _resize_shape(node: fx.Node, keeps: Keeps) -> None:
    """Only a width that is narrowed on purpose gets here: otherwise the normalised dims are pinned."""
    counts = [keeps.count(node, dim) for dim in trailing_dims(node)]
    sizes = argument(node, "normalized_shape")
    set_argument(node, "normalized_shape", [s if n is None else n for s, n in zip(sizes, counts, strict=True)])


LAYER_NORM = norm_rule("layer_norm", trailing_dims, _resize_shape)
RMS_NORM = norm_rule("rms_norm", trailing_dims, _resize_shape)


# ---------------------------------------------------------------------------------------------------- group norm


def _group_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    """Channels and positions are mixed alike; the affine operands lie along dim 1."""
    source = first_argument(node)
    spread = any_over(live_out, range(1, live_out.dim()))
    channels = any_over(live_out, [d for d in range(live_out.dim()) if d != 1]).reshape(-1)
    return {source: spread.expand(fact_shape(source))} | dict.fromkeys(_affine(node), channels)


def _group_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source = first_argument(node)
    ties.same(ties.axis(source, 0), ties.axis(node, 0))
    for value in (source, node):
        ties.pin(value, range(1, len(shape_of(node))), "normalised by group_norm")


GROUP_NORM = Rule("group_norm", unknown_constant, _group_live, _group_ties, kind=Kind.NORM)


# ---------------------------------------------------------------------------------------------------- batch norm


def _along_channels(node: fx.Node) -> list[int]:
    """The shape of an operand over dim 1, spread over the result's dims."""
    return [1, -1, *[1] * (len(shape_of(node)) - 2)]


def _batch_norm_constant(node: fx.Node, facts: Facts) -> Fact:
    x = facts.fact(first_argument(node))
    if not bool(x.const.any()):
        return unknown_constant(node, facts)
    const = x.const
    numbers = {"weight": torch.ones(()).double(), "bias": torch.zeros(()).double()}  # running statistics are given
    for name in ("weight", "bias", "running_mean", "running_var"):
        operand = tensor_argument(node, name)
        if operand is not None:
            fact = facts.fact(operand)
            const = const & fact.const.reshape(_along_channels(node))
            numbers[name] = fact.value.double().reshape(_along_channels(node))
    scale = numbers["weight"] * (numbers["running_var"] + float(argument(node, "eps"))).rsqrt()
    value = (x.value.double() - numbers["running_mean"]) * scale + numbers["bias"]
    return make_fact(const.expand(fact_shape(node)), value.to(x.value.dtype).expand(fact_shape(node)))


def _batch_norm_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    source, *operands = tensor_inputs(node)
    channels = any_over(live_out, [d for d in range(live_out.dim()) if d != 1]).reshape(-1)
    return {source: live_out} | {operand: channels.expand(fact_shape(operand)) for operand in operands}


def _batch_norm_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, *operands = tensor_inputs(node)
    for d in range(len(shape_of(node))):
        ties.same(ties.axis(source, d), ties.axis(node, d))
    for operand in operands:
        ties.same(ties.axis(operand, 0), ties.axis(node, 1))


def _by_running_statistics(node: fx.Node) -> bool:
    """In eval mode a batch norm leaves positions apart; by the batch's own statistics it mixes them."""
    return not argument(node, "training") and len(tensor_inputs(node)) == len(node.all_input_nodes)


BATCH_NORM = Rule(
    "batch_norm (eval)",
    _batch_norm_constant,
    _batch_norm_live,
    _batch_norm_ties,
    applies=_by_running_statistics,
)

RULES = {
    aten.layer_norm.default: LAYER_NORM,
    **dict.fromkeys((aten.rms_norm.default, aten._fused_rms_norm.default), RMS_NORM),
    aten.group_norm.default: GROUP_NORM,
    aten.batch_norm.default: BATCH_NORM,
}
