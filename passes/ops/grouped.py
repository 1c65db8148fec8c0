"""Grouped products: each row of x is multiplied by the matrix of its group (stacked experts, rows sorted by expert).

y_s = x_s W[g(s)],   x (S, I), W (groups, I, O), and rows up to ``offs[g]`` belong to group g or an earlier one.

constant  y_o is 0 where x_i W[g, i, o] is 0 for every group and i. Other numbers are not followed: rows after the last
          group are not computed
live      x_i and W[g, i, o] where y_o is live and neither is 0
ties      x's channels are W's rows, y's are W's columns, of all groups alike, in multiples of 8; groups stay, for rows
          name them by number
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from passes.ir.sizes import is_static, shape_of, tensor_of
from passes.ops.facts import Fact, any_over, everything, fact_shape, make_fact
from passes.ops.rule import Facts, Live, Rule
from passes.ops.ties import Ties

# torch's kernels take rows of 16 bytes and multiples; a module that is traced in float32 may run in half precision.
_MULTIPLE = 8


def _operands(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node]:
    """x, W and the groups' ends, whatever the schema calls them."""
    x, weights, ends = node.all_input_nodes
    return x, weights, ends


def _applies(node: fx.Node) -> bool:
    """Rows in groups, all matrices of one number of channels; no bias."""
    inputs = node.all_input_nodes
    if [len(shape_of(n)) for n in inputs] != [2, 3, 1]:
        return False
    return all(is_static(size) for size in (shape_of(inputs[0])[1], *shape_of(inputs[1])))


def constant(node: fx.Node, facts: Facts) -> Fact:
    (x, weights, _), fake = _operands(node), tensor_of(node)
    assert fake is not None
    zero = (~_terms(facts, x, weights)).all(dim=(0, 1)).expand(fact_shape(node))  # (S, O)
    return make_fact(zero, torch.zeros(fact_shape(node), dtype=fake.dtype))


def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    x, weights, ends = _operands(node)
    terms = _terms(facts, x, weights) & any_over(live_out, [0])
    return {x: terms.any(dim=(0, 2)).expand(fact_shape(x)), weights: terms, ends: everything(ends)}


def _terms(facts: Facts, x: fx.Node, weights: fx.Node) -> torch.Tensor:
    """Whether x_i W[g, i, o] may be other than 0: (groups, I, O)."""
    return (~facts.fact(x).zero).any(dim=0)[:, None] & ~facts.fact(weights).zero


def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    x, weights, ends = _operands(node)
    ties.same(ties.axis(x, 0), ties.axis(node, 0))
    ties.same(ties.axis(x, 1), ties.axis(weights, 1))
    ties.same(ties.axis(node, 1), ties.axis(weights, 2))
    for dim in (1, 2):
        ties.multiple(ties.axis(weights, dim), _MULTIPLE)
    ties.pin(weights, [0], "one matrix for each group of rows")
    ties.pin(ends, None, "an index")


RULE = Rule("grouped product", constant, live, ties, applies=_applies)

# By name: the second is what transformers runs where the first has no kernel, and exists once transformers is imported.
BY_NAME: Mapping[str, Rule] = dict.fromkeys(("aten::_grouped_mm", "transformers::grouped_mm_fallback"), RULE)
