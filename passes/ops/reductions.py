"""Operators that mix the entries along some dims: reductions, softmax, cumulative sums, pooling and the like.

Nothing they compute is constant, but for the mean, largest or smallest of constant entries. Every entry along a mixed
dim is read when any result is, and mixed dims are pinned: a mean over fewer channels is another mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.arguments import argument, first_argument
from passes.ops.facts import Fact, any_over, fact_shape, make_fact
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.structural import tie_other_dims
from passes.ops.ties import Ties
from passes.ops.unknown import unknown_constant

aten = torch.ops.aten
Dims = Callable[[fx.Node], Sequence[int]]

# However many entries hold a number, these give that number again.
_AVERAGES: Mapping[Any, Callable[..., torch.Tensor]] = {
    aten.mean.dim: torch.mean,
    aten.mean.default: torch.mean,
    aten.amax.default: torch.amax,
    aten.amin.default: torch.amin,
}

_POSITIONS = (aten.argmax.default, aten.argmin.default)  # what they give is a position among all entries


def reduced_dims(node: fx.Node) -> Sequence[int]:
    """The reduced dims of mean, sum, amax, norms and the like, counted from 0; all where none are given."""
    rank = len(shape_of(first_argument(node)))
    given = argument(node, "dim")
    if given is None or given == []:
        return range(rank)
    return [d % rank for d in (given if isinstance(given, list | tuple) else [given])]


def _reduced_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    source = first_argument(node)
    shape = fact_shape(source)
    if live_out.dim() < len(shape):
        for d in sorted(reduced_dims(node)):
            live_out = live_out.unsqueeze(d)
    return {source: live_out.expand(shape)}


def _reduced_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, dims = first_argument(node), set(reduced_dims(node))
    reason = f"reduced by {operator_name(node)}: over fewer channels it is another number"
    if node.target in _POSITIONS:
        ties.pin(source, sorted(dims), reason)
    else:
        ties.sums_over(node, source, sorted(dims), reason)
    kept = [d for d in range(len(shape_of(source))) if d not in dims]
    keepdim = len(shape_of(node)) == len(shape_of(source))
    for position, d in enumerate(kept):
        ties.same(ties.axis(source, d), ties.axis(node, d if keepdim else position))


def _reduced_constant(node: fx.Node, facts: Facts) -> Fact:
    fake, fact, average = tensor_of(node), facts.fact(first_argument(node)), _AVERAGES.get(node.target)
    assert fake is not None
    if average is None or not bool(fact.const.any()):
        return unknown_constant(node, facts)
    dims = list(reduced_dims(node))
    if not dims:  # the reduction of a single number
        return make_fact(fact.const.expand(fact_shape(node)), fact.value.to(fake.dtype).expand(fact_shape(node)))
    keepdim = len(shape_of(node)) == fact.const.dim()
    value = average(fact.value.to(fake.dtype), dims, keepdim=keepdim)
    const = fact.const.to(torch.uint8).amin(dims, keepdim=keepdim).bool()
    return make_fact(const.expand(fact_shape(node)), value.expand(fact_shape(node)))


def operator_name(node: fx.Node) -> str:
    """The plain name of an ATen operator, for reports."""
    return node.target._schema.name.partition("::")[2] if isinstance(node.target, torch._ops.OpOverload) else node.name


REDUCTION = Rule("a reduction", _reduced_constant, _reduced_live, _reduced_ties, kind=Kind.REDUCTION, tabular=True)


def mixing_rule(name: str, dims_of: Dims, kind: Kind = Kind.OTHER, tabular: bool = False) -> Rule:
    """The result has the inputs' dims; along ``dims_of(node)`` every entry depends on all, and sizes may differ."""

    def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
        spread = any_over(live_out, dims_of(node))
        return {source: spread.expand(fact_shape(source)) for source in tensor_inputs(node)}

    def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
        mixed = list(dims_of(node))
        ties.pin(node, mixed, f"mixed by {name}")
        for source in tensor_inputs(node):
            ties.pin(source, mixed, f"mixed by {name}")
            tie_other_dims(node, source, mixed, ties)

    return Rule(name, unknown_constant, live, ties, kind=kind, tabular=tabular)


def one_dim(node: fx.Node) -> Sequence[int]:
    """The single dim of softmax, cumsum, diff and the like."""
    return [argument(node, "dim") % len(shape_of(node))]


def last_dims(count: int) -> Dims:
    """The trailing dims: the positions of pooling and upsampling."""
    return lambda node: range(len(shape_of(node)) - count, len(shape_of(node)))


SOFTMAX = mixing_rule("softmax", one_dim, Kind.SOFTMAX)
LOG_SOFTMAX = mixing_rule("log_softmax", one_dim)
CUMULATIVE = mixing_rule("a cumulative sum", one_dim, tabular=True)
DIFF = mixing_rule("a difference", one_dim, tabular=True)
POOL_1D = mixing_rule("pooling", last_dims(1))
POOL_2D = mixing_rule("pooling", last_dims(2))
UPSAMPLE_2D = mixing_rule("upsampling", last_dims(2), tabular=True)

RULES = {
    **dict.fromkeys(
        (
            aten.mean.dim,
            aten.mean.default,
            aten.sum.dim_IntList,
            aten.sum.default,
            aten.var.correction,
            aten.var.dim,
            aten.std.correction,
            aten.std.dim,
            aten.amax.default,
            aten.amin.default,
            aten.any.dim,
            aten.all.dim,
            aten.argmax.default,
            aten.argmin.default,
            aten.logsumexp.default,
            aten.linalg_vector_norm.default,
            aten.norm.ScalarOpt_dim,
        ),
        REDUCTION,
    ),
    **dict.fromkeys((aten.softmax.int, aten._softmax.default, aten._safe_softmax.default), SOFTMAX),
    aten.log_softmax.int: LOG_SOFTMAX,
    aten.cumsum.default: CUMULATIVE,
    aten.diff.default: DIFF,
    **dict.fromkeys((aten.adaptive_avg_pool1d.default, aten.avg_pool1d.default, aten.max_pool1d.default), POOL_1D),
    **dict.fromkeys(
        (
            aten.adaptive_avg_pool2d.default,
            aten._adaptive_avg_pool2d.default,
            aten.avg_pool2d.default,
            aten.max_pool2d.default,
        ),
        POOL_2D,
    ),
    **dict.fromkeys(
        (
            aten.upsample_bilinear2d.vec,
            aten.upsample_bilinear2d.default,
            aten.upsample_bicubic2d.vec,
            aten.upsample_nearest2d.vec,
        ),
        UPSAMPLE_2D,
    ),
}
