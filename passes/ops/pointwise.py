"""Pointwise operators: each output entry is a function of the operands' entries at the same (broadcast) index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from passes.ir.sizes import tensor_inputs, tensor_of
from passes.ops.facts import Fact, fact_shape, make_fact, nothing_constant, reduce_to
from passes.ops.rule import Live, Rule

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties

aten = torch.ops.aten
LIKE = frozenset({aten.type_as.default, aten.to.other})  # the second operand gives a dtype, no numbers
OVERWRITES = frozenset({aten.copy.default, aten.fill.Tensor})  # the result has the second operand's numbers
PRODUCTS = frozenset({aten.mul.Tensor, aten.logical_and.default, aten.__and__.Tensor, aten.bitwise_and.Tensor})


def operands_of(node: fx.Node) -> list[fx.Node]:
    """The operands whose numbers matter."""
    if node.target in LIKE:
        return tensor_inputs(node)[:1]
    return tensor_inputs(node)[-1:] if node.target in OVERWRITES else tensor_inputs(node)


def constant(node: fx.Node, constants: Constants) -> Fact:
    """f(c, d, ...) where all operands are constant; a product is 0 where either factor is."""
    shape, fake = fact_shape(node), tensor_of(node)
    assert fake is not None
    operands = operands_of(node)
    facts = {o: constants.fact(o) for o in operands}
    if node.target in LIKE or node.target in OVERWRITES:
        fact = facts[operands[0]]
        return make_fact(fact.const.expand(shape), fact.value.to(fake.dtype).expand(shape))
    if not operands or any(isinstance(a, fx.Node) and a not in facts for a in (*node.args, *node.kwargs.values())):
        return nothing_constant(shape, fake.dtype)  # a size from the inputs takes part
    if not any(bool(f.const.any()) for f in facts.values()):
        return nothing_constant(shape, fake.dtype)
    const = torch.ones((), dtype=torch.bool)
    for fact in facts.values():
        const = const & fact.const
    zero = _absorbing_zero(node, facts)
    if zero is None and not bool(const.any()):
        return nothing_constant(shape, fake.dtype)

    def number(argument: Any) -> Any:
        return facts[argument].value if isinstance(argument, fx.Node) else argument

    assert callable(node.target)
    value = node.target(*fx.map_arg(node.args, number), **fx.map_arg(node.kwargs, number)).expand(shape)
    if value.is_meta:
        return nothing_constant(shape, fake.dtype)  # a model without numbers moves a constant to its device
    const = const.expand(shape)
    if zero is not None:
        value = torch.where(zero, torch.zeros((), dtype=value.dtype), value)
        const = const | zero
    return make_fact(const, value)


def _absorbing_zero(node: fx.Node, facts: dict[fx.Node, Fact]) -> torch.Tensor | None:
    """Entries that are 0 because one factor is, whatever the other (assumed finite, see exactness trap 11)."""
    if node.target not in PRODUCTS:
        return None
    zero = torch.zeros((), dtype=torch.bool)
    for fact in facts.values():
        zero = zero | fact.zero
    return zero


def live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    """An operand entry is read where the result is, unless the other factor is constant 0."""
    operands = operands_of(node)
    result = {}
    for operand in operands:
        reads = live_out
        if node.target in PRODUCTS and len(operands) == 2:
            other = operands[0] if operand is operands[1] else operands[1]
            reads = reads & ~constants.fact(other).zero
        result[operand] = reduce_to(reads, constants.fact(operand).const.shape)
    return result


def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    ties.broadcast(node, tensor_inputs(node) if node.target in OVERWRITES else operands_of(node))


def is_pointwise(node: fx.Node) -> bool:
    """Tagged pointwise by torch, or one of the casts and logical operators that torch leaves untagged."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded in target.tags:
        return target is aten.dropout.default and not node.args[2]
    return torch.Tag.pointwise in target.tags or target in UNTAGGED


UNTAGGED = frozenset(
    {
        aten.to.dtype,
        aten.to.device,
        aten.to.dtype_layout,
        aten.to.other,
        aten._to_copy.default,
        aten.type_as.default,
        aten.contiguous.default,
        aten.alias.default,
        aten.detach.default,
        aten.__and__.Tensor,
        aten.__or__.Tensor,
        aten.__and__.Scalar,
        aten.__or__.Scalar,
        aten.log_sigmoid.default,
        aten.hardswish.default,
        aten.logical_not.default,
        aten.masked_fill.Tensor,
        aten.where.ScalarOther,
        aten.where.ScalarSelf,
        aten.where.Scalar,
        aten.copy.default,
        aten.fill.Tensor,
    }
)

RULE = Rule("pointwise", constant, live, ties, tabular=True)
