"""Gated linear units: out_i = a_i · σ(b_i), where a and b are the two halves of one dimension.

constant  out_i where a_i and b_i are constant, or a_i is constant 0
live      a_i where out_i is; b_i where out_i is and a_i is not constant 0
ties      the halved dimension of the input is a grid (2, n): what the output keeps is kept in both halves
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import is_static, shape_of, tensor_of
from passes.ops.arguments import argument, first_argument
from passes.ops.facts import Fact, fact_shape, make_fact, nothing_constant
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.structural import tie_other_dims
from passes.ops.ties import Ties


def halved_dim(node: fx.Node) -> int:
    dim: int = argument(node, "dim")
    return dim % len(shape_of(node))


def constant(node: fx.Node, facts: Facts) -> Fact:
    fake, dim = tensor_of(node), halved_dim(node)
    assert fake is not None
    fact = facts.fact(first_argument(node))
    if not is_static(shape_of(node)[dim]):
        return nothing_constant(fact_shape(node), fake.dtype)
    (a, b), (va, vb) = fact.const.chunk(2, dim), fact.value.chunk(2, dim)
    zero = a & (va == 0)
    return make_fact(a & b | zero, torch.where(zero, va, va * vb.sigmoid()))


def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    source, dim = first_argument(node), halved_dim(node)
    if not is_static(shape_of(node)[dim]):
        return {source: live_out.expand(fact_shape(source))}
    a = facts.fact(source).zero.chunk(2, dim)[0]
    return {source: torch.cat([live_out, live_out & ~a], dim)}


def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, dim = first_argument(node), halved_dim(node)
    tie_other_dims(node, source, [dim], ties)
    whole, half = ties.axis(source, dim), ties.axis(node, dim)
    if whole is not None:
        halves = ties.virtual(2)
        ties.pins[halves] = "the two halves of a gated linear unit"
        ties.grid(whole, [halves] if half is None else [halves, half])


RULE = Rule("glu", constant, live, ties, kind=Kind.GATE)

RULES = {torch.ops.aten.glu.default: RULE}
