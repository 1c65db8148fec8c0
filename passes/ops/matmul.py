"""Products of two computed tensors: matmul, bmm (attention written out), and what holds around a softmax.

constant  Σ_k a_ik b_kj: each term has two constants or one constant 0. Where the rows of a sum to 1 (softmax) and b is
          constant over k, the product is b.
live      (a_ik, b_kj) are read where the product is, unless the other is constant 0. Where the product reaches nothing
          but a softmax over j, a channel k with b_kj constant over j adds one number to a whole row: neither is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from passes.ir.sizes import is_static, shape_of, tensor_inputs, tensor_of
from passes.ops.facts import Fact, collapse_fact, fact_shape, make_fact, nothing_constant, reduce_to
from passes.ops.rule import Live, Rule
from passes.ops.softmax import shift_invariant

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties


def operands(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    a, b = node.args[0], node.args[1]
    assert isinstance(a, fx.Node)
    assert isinstance(b, fx.Node)
    return a, b


def is_product(node: fx.Node) -> bool:
    """A product of two tensors of rank 2 or more (vectors are left to the conservative default)."""
    return len(tensor_inputs(node)) <= 2 and all(len(shape_of(n)) >= 2 for n in tensor_inputs(node))


def constant(node: fx.Node, constants: Constants) -> Fact:
    (a, b), fake = operands(node), tensor_of(node)
    assert fake is not None
    fa, fb = constants.fact(a), constants.fact(b)
    if not bool(fb.const.any()) and not bool(fa.zero.any()):
        return nothing_constant(fact_shape(node), fake.dtype)
    terms_unknown = (~fa.const).float() @ (~fb.zero).float() + (fa.const & ~fa.zero).float() @ (~fb.const).float()
    const = terms_unknown == 0
    value = fa.value.double() @ fb.value.double()
    if not is_static(shape_of(a)[-1]):
        const = const & (value == 0)  # a sum over data repeats its term an unknown number of times
    const, value = const.expand(fact_shape(node)), value.to(fake.dtype).expand(fact_shape(node))
    if a in constants.row_stochastic:
        kept = collapse_fact(fb, [fb.const.dim() - 2])
        same = kept.const.expand(fact_shape(node))
        value = torch.where(same, kept.value.to(fake.dtype).expand(fact_shape(node)), value)
        const = const | same
    return make_fact(const, value)


def live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    a, b = operands(node)
    fa, fb = constants.fact(a), constants.fact(b)
    ignored = torch.zeros((), dtype=torch.bool).expand(fb.const.shape)
    if shift_invariant(node):
        ignored = collapse_fact(fb, [fb.const.dim() - 1]).const.expand(fb.const.shape)
    useful_b = ~fb.zero & ~ignored
    reads_a = (live_out.float() @ useful_b.float().mT > 0) & ~fa.zero
    reads_b = ((~fa.zero).float().mT @ live_out.float() > 0) & useful_b
    result = {a: reduce_to(reads_a, fa.const.shape)}
    result[b] = result.get(b, torch.zeros((), dtype=torch.bool)) | reduce_to(reads_b, fb.const.shape)
    return result


def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    a, b = operands(node)
    rank, ra, rb = len(shape_of(node)), len(shape_of(a)), len(shape_of(b))
    ties.same(ties.axis(node, rank - 2), ties.axis(a, ra - 2))
    ties.same(ties.axis(node, rank - 1), ties.axis(b, rb - 1))
    ties.same(ties.axis(a, ra - 1), ties.axis(b, rb - 2))
    for dim in range(rank - 2):
        for operand, own in ((a, ra), (b, rb)):
            if dim - (rank - own) >= 0:
                ties.same(ties.axis(node, dim), ties.axis(operand, dim - (rank - own)))


RULE = Rule("matmul", constant, live, ties)
