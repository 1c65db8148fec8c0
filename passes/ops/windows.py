"""Sliding windows: out[.., w, .., k] = x[.., w · step + k, ..], the window's entries in a new last dim.

constant  where the windows' entries are, moved like them; along data, where the channel is
live      what some live entry of a window was copied from
ties      the unfolded dim and the two it becomes are pinned, the others are the same
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from passes.ir.sizes import is_static, shape_of
from passes.ops.arguments import argument, first_argument
from passes.ops.facts import fact_shape
from passes.ops.rule import Facts
from passes.ops.structural import Collapse, structural_rule, tie_other_dims
from passes.ops.ties import Ties

aten = torch.ops.aten


def unfolded_dim(node: fx.Node) -> int:
    dim: int = argument(node, "dimension")
    return dim % len(shape_of(first_argument(node)))


def _move_unfold(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    t, dim = inputs[0], unfolded_dim(node)
    if is_static(shape_of(first_argument(node))[dim]):
        return t.unfold(dim, argument(node, "size"), argument(node, "step"))
    return t.unsqueeze(-1).expand(fact_shape(node))  # every place of a window reads the channel somewhere


def _tie_unfold(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, dim = first_argument(node), unfolded_dim(node)
    tie_other_dims(node, source, [dim], ties)
    ties.pin(source, [dim], "unfolded into windows")
    ties.pin(node, [dim, len(shape_of(node)) - 1], "unfolded into windows")


UNFOLD = structural_rule("unfold", _move_unfold, _tie_unfold)

RULES = {aten.unfold.default: UNFOLD}
