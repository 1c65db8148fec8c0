"""Pieces and copies along one dim: slice, select, cat, flip, roll, repeat, repeat_interleave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from passes.ir.sizes import is_static, shape_of
from passes.ops.arguments import argument, arguments, first_argument, set_argument
from passes.ops.facts import fact_shape
from passes.ops.rule import Facts, Keeps
from passes.ops.structural import Collapse, structural_rule, tie_other_dims
from passes.ops.ties import Repeat, Ties

aten = torch.ops.aten

# Operators that give a list of pieces. The front end rewrites them as slices, but for pieces of a data dim.
SPLITS = frozenset(
    {
        aten.split.Tensor,
        aten.split.sizes,
        aten.split_with_sizes.default,
        aten.unsafe_split.Tensor,
        aten.chunk.default,
        aten.unsafe_chunk.default,
        aten.tensor_split.sections,
        aten.unbind.int,
    }
)

# -------------------------------------------------------------------------------------------------------- slice


def slice_arguments(node: fx.Node) -> tuple[int, Any, Any, Any]:
    """(dim, start, end, step) of aten.slice.Tensor with defaults filled in; bounds may be nodes."""
    given = arguments(node)
    return given["dim"] % len(shape_of(first_argument(node))), given["start"], given["end"], given["step"]


def slice_index(node: fx.Node) -> torch.Tensor | None:
    """The indices a slice of a channel dim reads, shape (kept,); None if it is no static slice."""
    dim, start, end, step = slice_arguments(node)
    size = shape_of(first_argument(node))[dim]
    if not is_static(size) or not is_static(shape_of(node)[dim]):
        return None
    if any(isinstance(bound, fx.Node) for bound in (start, end, step)):
        return None
    return torch.arange(size)[slice(start, end, step)]


def _move_slice(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    index, dim = slice_index(node), slice_arguments(node)[0]
    if index is not None:
        return inputs[0].index_select(dim, index)
    return collapse(inputs[0], dim).expand(fact_shape(node))


def _tie_slice(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, (dim, _, _, step) = first_argument(node), slice_arguments(node)
    tie_other_dims(node, source, [dim], ties)
    index = slice_index(node)
    if index is None or step != 1:
        ties.pin(source, [dim], "sliced by a data-dependent or strided range")
        ties.pin(node, [dim], "sliced by a data-dependent or strided range")
    elif len(index) == shape_of(source)[dim]:
        ties.same(ties.axis(node, dim), ties.axis(source, dim))
    else:
        ties.part(ties.axis(source, dim), ties.axis(node, dim), index)


def _resize_slice(node: fx.Node, keeps: Keeps) -> None:
    """Bounds become counts of kept indices before them."""
    index, (dim, _, _, _) = slice_index(node), slice_arguments(node)
    source = first_argument(node)
    kept = keeps.keep(source, dim)
    if index is None or kept is None or len(index) == 0 or keeps.count(source, dim) is None:
        return
    start, end = int(index[0]), int(index[-1]) + 1
    node.args = (source, dim, int(kept[:start].sum()), int(kept[:end].sum()))
    node.kwargs = {}


SLICE = structural_rule("slice", _move_slice, _tie_slice, _resize_slice)

# ------------------------------------------------------------------------------------------------------- select


def select_index(node: fx.Node) -> tuple[int, int | None]:
    """(dim, index) of aten.select.int; index None where the dim is data or the index not a literal."""
    source, index = first_argument(node), argument(node, "index")
    dim = argument(node, "dim") % len(shape_of(source))
    size = shape_of(source)[dim]
    return (dim, index % size) if is_static(size) and isinstance(index, int) else (dim, None)


def _move_select(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    dim, index = select_index(node)
    return collapse(inputs[0], dim).squeeze(dim) if index is None else inputs[0].select(dim, index)


def _tie_select(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source = first_argument(node)
    dim, index = select_index(node)
    for own, d in enumerate(d for d in range(len(shape_of(source))) if d != dim):
        ties.same(ties.axis(node, own), ties.axis(source, d))
    if index is None:
        ties.pin(source, [dim], "selected by a computed index")
    else:
        ties.part(ties.axis(source, dim), None, torch.tensor([index]))


def _resize_select(node: fx.Node, keeps: Keeps) -> None:
    dim, index = select_index(node)
    source = first_argument(node)
    kept = keeps.keep(source, dim)
    if index is not None and kept is not None:
        node.args = (source, dim, int(kept[:index].sum()))
        node.kwargs = {}


SELECT = structural_rule("select", _move_select, _tie_select, _resize_select)

# ---------------------------------------------------------------------------------------------------------- cat


def cat_dim(node: fx.Node) -> int:
    dim: int = argument(node, "dim")
    return dim % len(shape_of(node))


def cat_pieces(node: fx.Node) -> list[fx.Node]:
    return [p for p in argument(node, "tensors") if isinstance(p, fx.Node)]


def _move_cat(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    dim = cat_dim(node)
    joined = torch.cat(list(inputs), dim)
    return joined if is_static(shape_of(node)[dim]) else collapse(joined, dim)


def _tie_cat(node: fx.Node, ties: Ties, facts: Facts) -> None:
    dim, offset = cat_dim(node), 0
    for piece in cat_pieces(node):
        tie_other_dims(node, piece, [dim], ties)
        size = shape_of(piece)[dim]
        if not is_static(size) or not is_static(shape_of(node)[dim]):
            ties.pin(piece, [dim], "concatenated along a data dimension")
            continue
        index = torch.arange(offset, offset + size)
        found = ties.axis(piece, dim)
        if found is None:  # a single entry: stays as long as the graph runs
            ties.part(ties.axis(node, dim), None, index)
        else:
            ties.part(ties.axis(node, dim), found, index)
        offset += size


def _resize_cat(node: fx.Node, keeps: Keeps) -> None:
    """Drop pieces of which nothing is kept."""
    dim = cat_dim(node)
    set_argument(node, "tensors", [p for p in cat_pieces(node) if keeps.count(p, dim) != 0])


CAT = structural_rule("cat", _move_cat, _tie_cat, _resize_cat, sources=cat_pieces, onto=True)

# -------------------------------------------------------------------------------------------------- flip, roll


def _dims(node: fx.Node) -> list[int]:
    return [d % len(shape_of(node)) for d in argument(node, "dims")]


def _move_flip(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    return inputs[0].flip(_dims(node))


def _tie_flip(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, flipped = first_argument(node), _dims(node)
    tie_other_dims(node, source, flipped, ties)
    for d in flipped:
        size = shape_of(node)[d]
        if is_static(size):
            ties.part(ties.axis(source, d), ties.axis(node, d), torch.arange(size).flip(0))


def _move_roll(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    return inputs[0].roll(argument(node, "shifts"), _dims(node))


def _tie_roll(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, rolled = first_argument(node), _dims(node)
    tie_other_dims(node, source, rolled, ties)
    ties.pin(source, rolled, "rolled")
    ties.pin(node, rolled, "rolled")


def _rolls_dims(node: fx.Node) -> bool:
    """Without dims, a roll runs over the flattened value; by computed shifts, no two runs are alike."""
    shifts = argument(node, "shifts")
    return bool(argument(node, "dims")) and all(isinstance(s, int) for s in shifts)


FLIP = structural_rule("flip", _move_flip, _tie_flip)
ROLL = structural_rule("roll", _move_roll, _tie_roll, applies=_rolls_dims)

# ------------------------------------------------------------------------------------------------------- repeat


def _move_repeat(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    t, counts = inputs[0], argument(node, "repeats")
    t = t.reshape([1] * (len(counts) - t.dim()) + list(t.shape))
    for d, size in enumerate(shape_of(node)):
        if not is_static(size):
            t = collapse(t, d)
    return t.repeat([c if is_static(s) else 1 for c, s in zip(counts, shape_of(node), strict=True)])


def _tie_repeat(node: fx.Node, ties: Ties, facts: Facts) -> None:
    """Dims repeated once are the same; the literal counts of others are left alone, so those dims are pinned."""
    source, counts = first_argument(node), argument(node, "repeats")
    offset = len(counts) - len(shape_of(source))
    for d, count in enumerate(counts):
        if count == 1 and d >= offset:
            ties.same(ties.axis(node, d), ties.axis(source, d - offset))
        else:
            ties.pin(node, [d], "repeated")
            if d >= offset:
                ties.pin(source, [d - offset], "repeated")


def _move_repeat_interleave(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    dim = argument(node, "dim") % len(shape_of(node))
    if not is_static(shape_of(node)[dim]):
        return inputs[0]  # of data or of one channel, see `_repeats_by_number`
    return inputs[0].repeat_interleave(argument(node, "repeats"), dim)


def _tie_repeat_interleave(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, dim = first_argument(node), argument(node, "dim") % len(shape_of(node))
    tie_other_dims(node, source, [dim], ties)
    flat, piece = ties.axis(node, dim), ties.axis(source, dim)
    if flat is not None and piece is not None:
        ties.repeat(Repeat(piece, flat, argument(node, "repeats"), node, source, dim))
    elif flat is not None:
        ties.pin(node, [dim], "repeated")


def _repeats_by_number(node: fx.Node) -> bool:
    """Along a dim that is named (the value is flattened otherwise), and channels by a number that is written out."""
    dim = argument(node, "dim")
    if not isinstance(dim, int):
        return False
    source, size = shape_of(first_argument(node))[dim], shape_of(node)[dim]
    return isinstance(argument(node, "repeats"), int) if is_static(size) else not is_static(source) or source == 1


REPEAT = structural_rule("repeat", _move_repeat, _tie_repeat)
REPEAT_INTERLEAVE = structural_rule(
    "repeat_interleave", _move_repeat_interleave, _tie_repeat_interleave, applies=_repeats_by_number
)

RULES = {
    aten.slice.Tensor: SLICE,
    aten.select.int: SELECT,
    aten.cat.default: CAT,
    aten.flip.default: FLIP,
    aten.roll.default: ROLL,
    aten.repeat.default: REPEAT,
    aten.repeat_interleave.self_int: REPEAT_INTERLEAVE,
}
