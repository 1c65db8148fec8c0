"""What a graph does with an input: does it look rows up in a table, does it mask the scores of an attention?

An integer that picks rows of an embedding is an index below its size, whatever the example holds (all ones, all
zeros); one that is compared, cast or multiplied may be a mask. A float input of zeros is one if it meets the scores of
an attention, or is called so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.ops.arguments import arguments, first_argument
from passes.ops.rule import Kind
from passes.ops.table import kind_of

aten = torch.ops.aten

_FILLS = frozenset({aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.where.self})


@dataclass(frozen=True)
class Use:
    """``table``: the values are indices below it. ``hides``: it reaches attention scores by sums alone. ``named``: its
    name says mask.
    """

    table: int | None = None
    hides: bool = False
    named: bool = False


def use_of(placeholder: fx.Node) -> Use:
    """Follow an input through views and casts to the operators that read it."""
    tables: list[int] = []
    hides = False
    seen, stack = {placeholder}, [placeholder]
    while stack:
        node = stack.pop()
        for user in node.users:
            if not isinstance(user.target, torch._ops.OpOverload) or user in seen:
                continue
            size = _table_size(user, node)
            if size is not None:
                tables.append(size)
            elif _is_mask_of(user, node):
                hides = True
            elif kind_of(user) in (Kind.VIEW, Kind.SUM) or user.target in _FILLS:
                seen.add(user)
                stack.append(user)
    return Use(min(tables, default=None), hides, "mask" in str(placeholder.target))


def _table_size(user: fx.Node, index: fx.Node) -> int | None:
    """How many rows ``user`` picks from by ``index``; None if it is not an index there, or the number is not fixed."""
    given = arguments(user)
    if user.target is aten.embedding.default:
        return _size(given["weight"], 0) if given["indices"] is index else None
    if user.target in (aten.index_select.default, aten.gather.default):
        return _size(given["self"], given["dim"]) if given["index"] is index else None
    if user.target is aten.index.Tensor and index in given["indices"]:
        return _size(given["self"], given["indices"].index(index))
    return None


def _is_mask_of(user: fx.Node, node: fx.Node) -> bool:
    given = arguments(user)
    return node in (given.get("attn_mask"), given.get("attn_bias")) or (
        kind_of(user) is Kind.SOFTMAX and first_argument(user) is node
    )


def _size(table: Any, dim: int) -> int | None:
    value = table.meta.get("val") if isinstance(table, fx.Node) else None
    size = value.shape[dim] if isinstance(value, torch.Tensor) else None
    return size if isinstance(size, int) else None
