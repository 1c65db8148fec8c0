"""Views: reshape, permute, expand. Every entry of the result is one of the source's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from passes.ir.sizes import is_static, reshape_groups, shape_of
from passes.ops.arguments import argument, first_argument, set_argument
from passes.ops.facts import fact_shape
from passes.ops.rule import Facts, Keeps
from passes.ops.structural import Collapse, structural_rule
from passes.ops.ties import Ties

aten = torch.ops.aten


def move_reshape(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: by groups of equal product."""
    in_shape, out_shape = shape_of(first_argument(node)), shape_of(node)
    t = inputs[0]
    middle = [1] * len(out_shape)
    for group in reshape_groups(in_shape, out_shape):
        if all(is_static(in_shape[d]) for d in group.inputs) and all(is_static(out_shape[d]) for d in group.outputs):
            for d in group.outputs:
                middle[d] = out_shape[d]
        else:
            for d in group.inputs:
                t = collapse(t, d)
    return t.reshape(middle).expand(fact_shape(node))


def _tie_reshape(node: fx.Node, ties: Ties, facts: Facts) -> None:
    ties.reshape(node, first_argument(node))


def resize_literals(node: fx.Node, keeps: Keeps, name: str) -> None:
    """Sizes of the result that are written out (argument ``name``): shrunk dims get their count, over -1 too."""
    sizes = list(argument(node, name))
    for dim in range(len(shape_of(node))):
        count = keeps.count(node, dim)
        if count is not None:
            sizes[dim] = count
    set_argument(node, name, sizes)


def _resize_view(node: fx.Node, keeps: Keeps) -> None:
    for name in ("size", "shape"):  # aten.view, aten.reshape
        if argument(node, name) is not None:
            resize_literals(node, keeps, name)


def _resize_unflatten(node: fx.Node, keeps: Keeps) -> None:
    first = argument(node, "dim") % len(shape_of(first_argument(node)))
    sizes = [keeps.count(node, first + i) or size for i, size in enumerate(argument(node, "sizes"))]
    set_argument(node, "sizes", sizes)


RESHAPE = structural_rule("reshape", move_reshape, _tie_reshape, onto=True)
VIEW = structural_rule("view", move_reshape, _tie_reshape, _resize_view, onto=True)
UNFLATTEN = structural_rule("unflatten", move_reshape, _tie_reshape, _resize_unflatten, onto=True)


# ------------------------------------------------------------------------------------------------------ permute


def permutation(node: fx.Node) -> list[int]:
    """out dim o of the node is in dim ``permutation[o]``."""
    rank = len(shape_of(node))
    probe = torch.empty([d + 2 for d in range(rank)], device="meta")
    assert callable(node.target)
    return [s - 2 for s in node.target(probe, *node.args[1:], **node.kwargs).shape]


def _move_permute(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    return inputs[0].permute(permutation(node))


def _tie_permute(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source = first_argument(node)
    for out_dim, in_dim in enumerate(permutation(node)):
        ties.same(ties.axis(node, out_dim), ties.axis(source, in_dim))


PERMUTE = structural_rule("permute", _move_permute, _tie_permute, onto=True)


# ------------------------------------------------------------------------------------------------------- expand


def _move_expand(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    return inputs[0].expand(fact_shape(node))


def _tie_expand(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source = first_argument(node)
    offset = len(shape_of(node)) - len(shape_of(source))
    for dim in range(len(shape_of(source))):
        ties.same(ties.axis(node, dim + offset), ties.axis(source, dim))


def _resize_expand(node: fx.Node, keeps: Keeps) -> None:
    sizes = list(argument(node, "size"))
    for dim in range(len(shape_of(node))):
        count = keeps.count(node, dim)
        if count is not None and sizes[dim] != -1:  # -1: the source's size, which follows by itself
            sizes[dim] = count
    set_argument(node, "size", sizes)


def _tie_expand_as(node: fx.Node, ties: Ties, facts: Facts) -> None:
    """The result's sizes are the other operand's at run time."""
    _tie_expand(node, ties, facts)
    other = argument(node, "other")
    for dim in range(len(shape_of(node))):
        ties.same(ties.axis(node, dim), ties.axis(other, dim))


EXPAND = structural_rule("expand", _move_expand, _tie_expand, _resize_expand, onto=True)
EXPAND_AS = structural_rule("expand_as", _move_expand, _tie_expand_as, onto=True)

RULES = {
    **dict.fromkeys((aten.view.default, aten.reshape.default, aten._unsafe_view.default), VIEW),
    **dict.fromkeys(
        (
            aten.flatten.using_ints,
            aten.unsqueeze.default,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        RESHAPE,
    ),
    aten.unflatten.int: UNFLATTEN,
    **dict.fromkeys(
        (
            aten.permute.default,
            aten.transpose.int,
            aten.t.default,
            aten.numpy_T.default,
            aten.mT.default,
            aten.movedim.int,
            aten.movedim.intlist,
        ),
        PERMUTE,
    ),
    **dict.fromkeys((aten.expand.default, aten.broadcast_to.default), EXPAND),
    aten.expand_as.default: EXPAND_AS,
}
