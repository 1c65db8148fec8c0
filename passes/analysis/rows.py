"""What holds around a softmax: its rows sum to 1 (forward), and a shift of a row does not matter (backward).

A row is what lies along the last dim. Both facts go through operators that leave rows whole: casts to floating dtypes,
views that keep the last dim, sums and scalings that treat a row alike.
"""

from __future__ import annotations

from torch import fx

from passes.ir.sizes import reads_sizes_only, same_size, shape_of, tensor_inputs, tensor_of
from passes.ops import pieces, pointwise, reductions, views
from passes.ops.arguments import first_argument
from passes.ops.rule import Kind
from passes.ops.table import rule_for

_FILL_IS_NOTHING = -1e4  # exp of less than this, relative to any visible score, is 0 in every precision bpc uses
_WHOLE_ROWS = (views.RESHAPE, views.VIEW, views.UNFLATTEN, views.EXPAND, views.EXPAND_AS, pieces.REPEAT)


def is_row_softmax(node: fx.Node) -> bool:
    """A softmax over the last dim."""
    if node.op != "call_function" or tensor_of(node) is None or rule_for(node).kind is not Kind.SOFTMAX:
        return False
    return list(reductions.one_dim(node)) == [len(shape_of(node)) - 1]


def passes_rows(node: fx.Node) -> bool:
    """Casts, copies and views that leave every row of their first input whole."""
    rule = rule_for(node)
    if rule is pointwise.CAST:
        return pointwise.keeps_rows(node)
    return rule in _WHOLE_ROWS and _same_rows(node, first_argument(node))


def _same_rows(node: fx.Node, source: fx.Node) -> bool:
    a, b = shape_of(node), shape_of(source)
    return bool(a) and bool(b) and same_size(a[-1], b[-1])


def row_stochastic_nodes(graph: fx.Graph) -> frozenset[fx.Node]:
    """Values whose rows sum to 1: softmax over the last dim, through whatever leaves rows whole."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "call_function" or tensor_of(node) is None:
            continue
        if is_row_softmax(node) or (passes_rows(node) and first_argument(node) in found):
            found.add(node)
    return frozenset(found)


def shift_invariant(node: fx.Node) -> bool:
    """Adding one number to a whole row of this value changes no output: it only reaches row softmaxes."""
    readers = [user for user in node.users if not reads_sizes_only(user)]
    return bool(readers) and all(_ignores_shift(user, node) for user in readers)


def _ignores_shift(user: fx.Node, value: fx.Node) -> bool:
    if user.op != "call_function" or tensor_of(user) is None or not shape_of(value):
        return False
    if is_row_softmax(user) or rule_for(user) is reductions.LOG_SOFTMAX:
        return list(reductions.one_dim(user)) == [len(shape_of(user)) - 1]
    if not _same_rows(user, value):
        return False  # the value is broadcast along its rows, or they are cut
    rule = rule_for(user)
    if passes_rows(user):
        return first_argument(user) is value and shift_invariant(user)
    if rule.kind is Kind.SUM:
        return shift_invariant(user)
    if rule.kind is Kind.PRODUCT:
        others = [n for n in tensor_inputs(user) if n is not value]
        uniform = len(tensor_inputs(user)) == len(others) + 1 and all(map(_uniform_over_rows, others))
        return first_argument(user) is value and uniform and shift_invariant(user)
    fill = pointwise.hidden_fill(user, value) if rule is pointwise.POINTWISE else None
    return fill is not None and fill <= _FILL_IS_NOTHING and shift_invariant(user)


def _uniform_over_rows(node: fx.Node) -> bool:
    shape = shape_of(node)
    return not shape or shape[-1] == 1
