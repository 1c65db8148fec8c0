"""What holds around a softmax: its rows sum to 1 (forward), and a shift of a row does not matter (backward)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_of

aten = torch.ops.aten

SOFTMAX = frozenset({aten.softmax.int, aten._softmax.default, aten._safe_softmax.default})
_CASTS: frozenset[Any] = frozenset(
    {
        aten.to.dtype,
        aten.to.device,
        aten.to.dtype_layout,
        aten._to_copy.default,
        aten.type_as.default,
        aten.clone.default,
        aten.dropout.default,
        aten.contiguous.default,
    }
)
_SHIFTS: frozenset[Any] = frozenset({aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar})
_SCALES: frozenset[Any] = frozenset({aten.mul.Tensor, aten.div.Tensor, aten.mul.Scalar, aten.div.Scalar})
_VIEWS: frozenset[Any] = frozenset(
    {aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default}
)
_FILL_IS_NOTHING = -1e4  # exp of less than this, relative to any visible score, is 0 in every precision bpc uses


def softmax_dim(node: fx.Node) -> int:
    """The normalised dim of a softmax node, counted from 0."""
    dim = node.args[1]
    assert isinstance(dim, int)
    return dim % len(shape_of(node))


def is_row_softmax(node: fx.Node) -> bool:
    return node.target in SOFTMAX and softmax_dim(node) == len(shape_of(node)) - 1


def passes_rows(node: fx.Node) -> bool:
    """Casts, clones and views that leave every row (last dim) of their first input whole."""
    if node.target in _CASTS:
        return True
    source = node.args[0] if node.args else None
    return (
        node.target in _VIEWS and isinstance(source, fx.Node) and _same_size(shape_of(source)[-1], shape_of(node)[-1])
    )


def _same_size(a: Any, b: Any) -> bool:
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int) and isinstance(b, int) and a == b
    return bool(a.node.expr == b.node.expr)


def shift_invariant(node: fx.Node) -> bool:
    """Adding one number to a whole row (last dim) of this value changes no output: it only reaches row softmaxes."""
    return bool(node.users) and all(_ignores_shift(user, node) for user in node.users)


def _ignores_shift(user: fx.Node, value: fx.Node) -> bool:
    if is_row_softmax(user):
        return True
    if passes_rows(user) or user.target in _SHIFTS:
        return _rank_kept(user, value) and shift_invariant(user)
    if user.target in _SCALES:
        other = [a for a in user.args if a is not value]
        uniform = all(not isinstance(o, fx.Node) or _uniform_over_rows(o) for o in other)
        return user.args[0] is value and len(other) == 1 and uniform and shift_invariant(user)
    fill = _masked_fill(user, value)
    return fill is not None and fill <= _FILL_IS_NOTHING and shift_invariant(user)


def _rank_kept(user: fx.Node, value: fx.Node) -> bool:
    """The value is not broadcast along the last dim by the user."""
    return _same_size(shape_of(user)[-1], shape_of(value)[-1])


def _uniform_over_rows(node: fx.Node) -> bool:
    fake = tensor_of(node)
    return fake is None or fake.dim() == 0 or shape_of(node)[-1] == 1


def _masked_fill(user: fx.Node, value: fx.Node) -> float | None:
    """The number that replaces hidden scores in masked_fill(scores, mask, c) or where(mask, scores, c)."""
    fill: Any = None
    if (user.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor) and user.args[0] is value) or (
        user.target in (aten.where.self, aten.where.ScalarOther) and user.args[1] is value
    ):
        fill = user.args[2]
    if isinstance(fill, fx.Node):
        fill = _scalar_of(fill)
    return float(fill) if isinstance(fill, int | float) else None


def _scalar_of(node: fx.Node) -> float | None:
    """The number of a 0-dim constant: full([], c), scalar_tensor(c)."""
    full: Callable[..., Any] = aten.full.default
    if node.target is full and node.args[0] == []:
        return float(node.args[1])  # type: ignore[arg-type]
    if node.target is aten.scalar_tensor.default:
        return float(node.args[0])  # type: ignore[arg-type]
    return None


def row_stochastic_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Values whose rows (last dim) sum to 1: softmax over the last dim, through casts and row-keeping views."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem or tensor_of(node) is None:
            continue
        if is_row_softmax(node) or (passes_rows(node) and node.args[0] in found):
            found.add(node)
    return found
