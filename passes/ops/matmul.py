"""Products of two computed tensors: matmul, bmm (attention written out), and what holds around a softmax.

constant  Σ_k a_ik b_kj: each term has two constants or one constant 0. Where the rows of a sum to 1 (softmax) and b is
          constant over k, the product is b.
live      (a_ik, b_kj) are read where the product is, unless the other is constant 0. Where the product reaches nothing
          but a softmax over j, a channel k with b_kj constant over j adds one number to a whole row: neither is read.
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import is_static, shape_of, tensor_of
from passes.ops.facts import Fact, collapse_fact, fact_shape, make_fact, nothing_constant, reduce_to
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.ties import Ties

aten = torch.ops.aten


def operands(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The two factors: the last two tensors among the arguments (baddbmm has a summand in front)."""
    a, b = [n for n in node.args if isinstance(n, fx.Node)][-2:]
    return a, b


def _is_product(node: fx.Node) -> bool:
    """Of two tensors of rank 2 or more that agree on what is summed over being data or channels."""
    (a, b), values = operands(node), [n for n in node.args if isinstance(n, fx.Node)]
    if len(values) != 2 or any(len(shape_of(n)) < 2 for n in values):
        return False
    return is_static(shape_of(a)[-1]) == is_static(shape_of(b)[-2])


def constant(node: fx.Node, facts: Facts) -> Fact:
    (a, b), fake = operands(node), tensor_of(node)
    assert fake is not None
    fa, fb = facts.fact(a), facts.fact(b)
    if not bool(fb.const.any()) and not bool(fa.zero.any()):
        return nothing_constant(fact_shape(node), fake.dtype)
    terms_unknown = (~fa.const).float() @ (~fb.zero).float() + (fa.const & ~fa.zero).float() @ (~fb.const).float()
    const = terms_unknown == 0
    value = fa.value.double() @ fb.value.double()
    if not is_static(shape_of(a)[-1]):
        const = const & (value == 0)  # a sum over data repeats its term an unknown number of times
    const, value = const.expand(fact_shape(node)), value.to(fake.dtype).expand(fact_shape(node))
    if facts.row_stochastic(a):
        kept = collapse_fact(fb, [fb.const.dim() - 2])
        same = kept.const.expand(fact_shape(node))
        value = torch.where(same, kept.value.to(fake.dtype).expand(fact_shape(node)), value)
        const = const | same
    return make_fact(const, value)


def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    a, b = operands(node)
    fa, fb = facts.fact(a), facts.fact(b)
    ignored = torch.zeros((), dtype=torch.bool).expand(fb.const.shape)
    if facts.shift_invariant(node):
        ignored = collapse_fact(fb, [fb.const.dim() - 1]).const.expand(fb.const.shape)
    useful_b = ~fb.zero & ~ignored
    reads_a = (live_out.float() @ useful_b.float().mT > 0) & ~fa.zero
    reads_b = ((~fa.zero).float().mT @ live_out.float() > 0) & useful_b
    result = {a: reduce_to(reads_a, fa.const.shape)}
    result[b] = result.get(b, torch.zeros((), dtype=torch.bool)) | reduce_to(reads_b, fb.const.shape)
    return result


def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    a, b = operands(node)
    ties.same(ties.axis(node, -2), ties.axis(a, -2))
    ties.same(ties.axis(node, -1), ties.axis(b, -1))
    ties.same(ties.axis(a, -1), ties.axis(b, -2))
    for operand in (a, b):
        for dim in range(-len(shape_of(operand)), -2):
            ties.same(ties.axis(node, dim), ties.axis(operand, dim))


RULE = Rule("matmul", constant, live, ties, kind=Kind.MATMUL, applies=_is_product)

RULES = dict.fromkeys((aten.matmul.default, aten.bmm.default, aten.mm.default, aten.baddbmm.default), RULE)
