"""Values made of sizes and numbers: zeros, full, arange, zeros_like.

constant  the literal number they are filled with; what counts (arange) is not constant
live      nothing: the value that another is made like gives its sizes only
ties      literal sizes are rewritten; the dims of a value made like another are the other's
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import tensor_inputs, tensor_of
from passes.ops.arguments import arguments
from passes.ops.facts import Fact, fact_shape, make_fact, nothing, nothing_constant
from passes.ops.rule import Facts, Keeps, Kind, Live, Rule
from passes.ops.ties import Ties
from passes.ops.views import resize_literals

aten = torch.ops.aten

_NUMBERS = {
    **dict.fromkeys((aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default), 0),
    **dict.fromkeys((aten.ones.default, aten.new_ones.default, aten.ones_like.default), 1),
}


def fill_value(node: fx.Node) -> float | int | None:
    """The number a creation operator fills its result with, exact as given; None if it is not one literal."""
    if node.target in _NUMBERS:
        return _NUMBERS[node.target]
    given = arguments(node)
    number = given.get("fill_value", given.get("s"))
    return number if isinstance(number, int | float) else None


def _constant(node: fx.Node, facts: Facts) -> Fact:
    fake, shape, number = tensor_of(node), fact_shape(node), fill_value(node)
    assert fake is not None
    if number is None:
        return nothing_constant(shape, fake.dtype)
    return make_fact(torch.ones(shape, dtype=torch.bool), torch.full(shape, number, dtype=fake.dtype))


def _live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    return {like: nothing(like) for like in tensor_inputs(node)}


def _ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    for like in tensor_inputs(node):
        ties.free(like)  # new_zeros: a dtype
    if fill_value(node) is None:
        ties.pin(node, None, "created by counting")
    else:
        ties.free(node)


def _like_ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    ties.broadcast(node, tensor_inputs(node))


def _resize(node: fx.Node, keeps: Keeps) -> None:
    if "size" in arguments(node):
        resize_literals(node, keeps, "size")


CREATION = Rule("creation", _constant, _live, _ties, _resize, Kind.CREATION, tabular=True)
CREATION_LIKE = Rule("creation like another value", _constant, _live, _like_ties, kind=Kind.CREATION, tabular=True)

RULES = {
    **dict.fromkeys(
        (
            aten.zeros.default,
            aten.ones.default,
            aten.full.default,
            aten.new_zeros.default,
            aten.new_ones.default,
            aten.new_full.default,
            aten.scalar_tensor.default,
            aten.arange.default,
            aten.arange.start,
            aten.arange.start_step,
        ),
        CREATION,
    ),
    **dict.fromkeys(
        (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default),
        CREATION_LIKE,
    ),
}
