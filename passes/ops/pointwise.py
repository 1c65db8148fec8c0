"""Pointwise operators: each output entry is a function of the operands' entries at the same (broadcast) index.

constant  f(c, d, ...) where all operands are constant; a product is 0 where either factor is
live      an operand entry where the result is, unless the other factor is constant 0
ties      every dim with the operands', aligned at the right

Any operator that torch tags pointwise has the general rule; the table names those that are more (casts, sums, products)
and those that torch leaves untagged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from passes.ir.sizes import tensor_inputs, tensor_of
from passes.ops.arguments import arguments, first_argument
from passes.ops.facts import Fact, fact_shape, make_fact, nothing, nothing_constant, reduce_to
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.ties import Ties

aten = torch.ops.aten

Operands = Callable[[fx.Node], list[fx.Node]]


def pointwise_rule(name: str, kind: Kind = Kind.POINTWISE, absorbing: bool = False) -> Rule:
    """``absorbing``: the result is 0 where any operand is, whatever the others (finite: 0 · ∞ is NaN)."""

    def zeros(node: fx.Node, facts: Facts) -> torch.Tensor:
        zero = torch.zeros((), dtype=torch.bool)
        for operand in tensor_inputs(node) if absorbing else ():
            zero = zero | facts.fact(operand).zero
        return zero

    def constant(node: fx.Node, facts: Facts) -> Fact:
        shape, fake = fact_shape(node), tensor_of(node)
        assert fake is not None
        known = {o: facts.fact(o) for o in tensor_inputs(node)}
        if not known or set(known) != set(node.all_input_nodes):
            return nothing_constant(shape, fake.dtype)  # a size or number from the inputs takes part
        const = torch.ones((), dtype=torch.bool)
        for fact in known.values():
            const = const & fact.const
        zero = zeros(node, facts)
        if not bool(const.any()) and not bool(zero.any()):
            return nothing_constant(shape, fake.dtype)
        assert callable(node.target)
        number = {o: f.value for o, f in known.items()}
        value = node.target(
            *fx.map_arg(node.args, number.__getitem__), **fx.map_arg(node.kwargs, number.__getitem__)
        ).expand(shape)
        if value.is_meta:
            return nothing_constant(shape, fake.dtype)  # a model without numbers moves a constant to its device
        value = torch.where(zero, torch.zeros((), dtype=value.dtype), value)
        return make_fact((const | zero).expand(shape), value)

    def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
        operands = tensor_inputs(node)
        result = {}
        for operand in operands:
            reads = live_out
            if absorbing and len(operands) == 2:
                other = operands[0] if operand is operands[1] else operands[1]
                reads = reads & ~facts.fact(other).zero
            result[operand] = reduce_to(reads, fact_shape(operand))
        return result

    def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
        ties.broadcast(node, tensor_inputs(node))

    return Rule(name, constant, live, ties, kind=kind, tabular=True)


def copying_rule(name: str, kind: Kind, numbers: Operands, shapes: Operands) -> Rule:
    """The result has the numbers of one operand, cast or broadcast; others give a dtype or a shape alone."""

    def constant(node: fx.Node, facts: Facts) -> Fact:
        fake, shape = tensor_of(node), fact_shape(node)
        assert fake is not None
        fact = facts.fact(numbers(node)[0])
        return make_fact(fact.const.expand(shape), fact.value.to(fake.dtype).expand(shape))

    def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
        unread = {other: nothing(other) for other in tensor_inputs(node)}
        return unread | {o: reduce_to(live_out, fact_shape(o)) for o in numbers(node)}

    def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
        ties.broadcast(node, shapes(node))
        for other in tensor_inputs(node):
            ties.free(other)

    return Rule(name, constant, live, ties, kind=kind, tabular=True)


def _first(node: fx.Node) -> list[fx.Node]:
    return [first_argument(node)]


def _last(node: fx.Node) -> list[fx.Node]:
    return tensor_inputs(node)[-1:]


POINTWISE = pointwise_rule("pointwise")
SUM = pointwise_rule("sum", Kind.SUM)
PRODUCT = pointwise_rule("product", Kind.PRODUCT, absorbing=True)
SCALE = pointwise_rule("scale", Kind.PRODUCT)
CAST = copying_rule("cast", Kind.VIEW, _first, _first)
OVERWRITE = copying_rule("overwrite", Kind.POINTWISE, _last, tensor_inputs)


def is_pointwise(node: fx.Node) -> bool:
    """Tagged pointwise by torch, and the same every time."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in target.tags:
        return False
    return torch.Tag.pointwise in target.tags


def keeps_rows(node: fx.Node) -> bool:
    """A cast to a floating dtype: what sums to 1 before it does so behind it."""
    fake = tensor_of(node)
    return fake is not None and fake.dtype.is_floating_point


def hidden_fill(node: fx.Node, value: fx.Node) -> float | None:
    """The number that replaces entries of ``value`` in masked_fill(value, mask, c) or where(mask, value, c)."""
    given = arguments(node)
    fill: Any = None
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        fill = given["value"] if first_argument(node) is value and given["mask"] is not value else None
    elif node.target in (aten.where.self, aten.where.ScalarOther):
        fill = given["other"] if given["self"] is value and given["condition"] is not value else None
    if isinstance(fill, fx.Node):
        fill = _scalar_of(fill)
    return float(fill) if isinstance(fill, int | float) else None


def _scalar_of(node: fx.Node) -> float | None:
    """The number of a 0-dim constant: full([], c), scalar_tensor(c)."""
    number: Any = None
    if node.target is aten.full.default and list(arguments(node)["size"]) == []:
        number = arguments(node)["fill_value"]
    elif node.target is aten.scalar_tensor.default:
        number = arguments(node)["s"]
    return float(number) if isinstance(number, int | float) else None


RULES = {
    **dict.fromkeys(
        (
            aten.to.dtype,
            aten.to.device,
            aten.to.dtype_layout,
            aten.to.other,
            aten._to_copy.default,
            aten.type_as.default,
            aten.contiguous.default,
            aten.clone.default,
            aten.alias.default,
            aten.detach.default,
        ),
        CAST,
    ),
    **dict.fromkeys((aten.copy.default, aten.fill.Tensor), OVERWRITE),
    **dict.fromkeys(
        (aten.add.Tensor, aten.sub.Tensor, aten.rsub.Tensor, aten.rsub.Scalar, aten.add.Scalar, aten.sub.Scalar), SUM
    ),
    **dict.fromkeys((aten.mul.Tensor, aten.logical_and.default, aten.__and__.Tensor, aten.bitwise_and.Tensor), PRODUCT),
    **dict.fromkeys((aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default), SCALE),
    **dict.fromkeys(
        (
            aten.__or__.Tensor,
            aten.__and__.Scalar,
            aten.__or__.Scalar,
            aten.log_sigmoid.default,
            aten.hardswish.default,
            aten.logical_not.default,
            aten.masked_fill.Tensor,
            aten.masked_fill.Scalar,
            aten.where.ScalarOther,
            aten.where.ScalarSelf,
            aten.where.Scalar,
        ),
        POINTWISE,
    ),
}
