"""The default: nothing is constant, everything is read, no axis shrinks."""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import tensor_inputs, tensor_of
from passes.ops.facts import Fact, everything, fact_shape, nothing_constant
from passes.ops.rule import Facts, Live, Rule
from passes.ops.ties import Ties


def unknown_constant(node: fx.Node, facts: Facts) -> Fact:
    fake = tensor_of(node)
    assert fake is not None
    return nothing_constant(fact_shape(node), fake.dtype)


def everything_live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    return {n: everything(n) for n in tensor_inputs(node)}


def all_pinned(reason: str) -> Rule:
    """The default, with a reason of one's own for the report."""

    def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
        for value in (node, *tensor_inputs(node)):
            ties.pin(value, None, reason)

    return Rule(reason, unknown_constant, everything_live, ties)


UNKNOWN = all_pinned("used by an operator without a transfer rule")
