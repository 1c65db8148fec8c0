"""Structural operators: views, permutations, slices, concatenations. They move entries and compute nothing.

Each operator is given once, as a function that moves a fact tensor (`move`). The constant fact is moved by it, the live
fact is pulled back by its adjoint (the vector-Jacobian product of the same function), so the two cannot disagree.
``collapse`` says what happens to channel entries that end up in one data dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from passes.ir.sizes import is_static, reshape_groups, shape_of, tensor_inputs, tensor_of
from passes.ops.facts import Fact, fact_shape, make_fact, nothing_constant
from passes.ops.rule import Live, Rule
from passes.ops.ties import Repeat

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties

aten = torch.ops.aten

Collapse = Callable[[torch.Tensor, int], torch.Tensor]  # (fact, dim) -> the dim has size 1
Move = Callable[[fx.Node, Sequence[torch.Tensor], Collapse], torch.Tensor]


def _first(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.narrow(dim, 0, 1)


def _smallest(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.amin(dim, keepdim=True)


def _largest(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.amax(dim, keepdim=True)


def _sum(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.sum(dim, keepdim=True)


# ------------------------------------------------------------------------------------------------------- movement


def move_reshape(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: by groups of equal product."""
    in_shape, out_shape = shape_of(tensor_inputs(node)[0]), shape_of(node)
    t = inputs[0]
    middle = [1] * len(out_shape)
    for group in reshape_groups(in_shape, out_shape):
        if all(is_static(in_shape[d]) for d in group.inputs) and all(is_static(out_shape[d]) for d in group.outputs):
            for d in group.outputs:
                middle[d] = out_shape[d]
        else:
            for d in group.inputs:
                t = collapse(t, d) if t.shape[d] != 1 else t
    return t.reshape(middle).expand(fact_shape(node))


def permutation(node: fx.Node) -> list[int]:
    """out dim o of the node is in dim ``permutation[o]``."""
    rank = len(shape_of(node))
    probe = torch.empty([d + 2 for d in range(rank)], device="meta")
    assert callable(node.target)
    return [s - 2 for s in node.target(probe, *node.args[1:], **node.kwargs).shape]


def move_permute(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    return inputs[0].permute(permutation(node))


def move_expand(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    return inputs[0].expand(fact_shape(node))


def slice_arguments(node: fx.Node) -> tuple[int, Any, Any, Any]:
    """(dim, start, end, step) of aten.slice.Tensor with defaults filled in; bounds may be nodes."""
    source = tensor_inputs(node)[0]
    given: list[Any] = [*node.args[1:], None, None, None, None]
    dim: Any = node.kwargs.get("dim", given[0]) or 0
    start = node.kwargs.get("start", given[1])
    end = node.kwargs.get("end", given[2])
    step = node.kwargs.get("step", given[3])
    return dim % len(shape_of(source)), start, end, 1 if step is None else step


def slice_index(node: fx.Node) -> torch.Tensor | None:
    """The indices a slice of a channel dim reads, shape (kept,); None if it is no static slice."""
    source = tensor_inputs(node)[0]
    dim, start, end, step = slice_arguments(node)
    size = shape_of(source)[dim]
    if not is_static(size) or not is_static(shape_of(node)[dim]):
        return None
    if any(isinstance(bound, fx.Node) for bound in (start, end, step)):
        return None
    return torch.arange(size)[slice(start, end, step)]


def move_slice(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    index, dim = slice_index(node), slice_arguments(node)[0]
    if index is not None:
        return inputs[0].index_select(dim, index)
    t = inputs[0] if inputs[0].shape[dim] == 1 else collapse(inputs[0], dim)
    return t.expand(fact_shape(node))


def select_index(node: fx.Node) -> tuple[int, int | None]:
    """(dim, index) of aten.select.int; index None where the dim is data or the index not a literal."""
    source, dim, index = node.args[0], node.args[1], node.args[2]
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    size = shape_of(source)[dim]
    dim = dim % len(shape_of(source))
    return (dim, index % size) if is_static(size) and isinstance(index, int) else (dim, None)


def move_select(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    dim, index = select_index(node)
    if index is not None and inputs[0].shape[dim] > 1:
        return inputs[0].select(dim, index)
    return (inputs[0] if inputs[0].shape[dim] == 1 else collapse(inputs[0], dim)).select(dim, 0)


def cat_dim(node: fx.Node) -> int:
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    assert isinstance(dim, int)
    return dim % len(shape_of(node))


def move_cat(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    dim = cat_dim(node)
    joined = torch.cat(list(inputs), dim)
    return joined if is_static(shape_of(node)[dim]) else collapse(joined, dim)


def move_flip(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    dims: Any = node.args[1]
    return inputs[0].flip([d for d in dims if inputs[0].shape[d] > 1])


def move_roll(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    shifts: Any = node.args[1]
    dims: Any = node.args[2]
    t = inputs[0]
    for shift, dim in zip(shifts, dims, strict=True):
        if t.shape[dim] > 1:
            t = t.roll(shift, dim)
    return t


def move_repeat_interleave(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    count, dim = node.args[1], node.args[2]
    assert isinstance(count, int)
    assert isinstance(dim, int)
    repeated = inputs[0].repeat_interleave(count, dim)
    return repeated if is_static(shape_of(node)[dim]) else collapse(repeated, dim)


def _repeats(node: fx.Node) -> list[Any]:
    """How often every dim of the result repeats the source (aligned at the right)."""
    given = node.args[1]
    assert isinstance(given, list | tuple)
    return list(given)


def move_repeat(node: fx.Node, inputs: Sequence[torch.Tensor], collapse: Collapse) -> torch.Tensor:
    t, counts = inputs[0], _repeats(node)
    t = t.reshape([1] * (len(counts) - t.dim()) + list(t.shape))
    for d, size in enumerate(shape_of(node)):
        if not is_static(size) and t.shape[d] != 1:
            t = collapse(t, d)
    return t.repeat([c if is_static(s) else 1 for c, s in zip(counts, shape_of(node), strict=True)])


# --------------------------------------------------------------------------------------------------------- ties


def tie_permute(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source = tensor_inputs(node)[0]
    for out_dim, in_dim in enumerate(permutation(node)):
        ties.same(ties.axis(node, out_dim), ties.axis(source, in_dim))


def tie_reshape(node: fx.Node, ties: Ties, constants: Constants) -> None:
    ties.reshape(node, tensor_inputs(node)[0])


def tie_expand(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source = tensor_inputs(node)[0]
    offset = len(shape_of(node)) - len(shape_of(source))
    for dim in range(len(shape_of(source))):
        ties.same(ties.axis(node, dim + offset), ties.axis(source, dim))


def _tie_others(node: fx.Node, source: fx.Node, dim: int, ties: Ties) -> None:
    for d in range(len(shape_of(source))):
        if d != dim:
            ties.same(ties.axis(node, d), ties.axis(source, d))


def tie_slice(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source, (dim, _, _, step) = tensor_inputs(node)[0], slice_arguments(node)
    _tie_others(node, source, dim, ties)
    index = slice_index(node)
    if index is None or step != 1:
        ties.pin(source, [dim], "sliced by a data-dependent or strided range")
        ties.pin(node, [dim], "sliced by a data-dependent or strided range")
    elif len(index) == shape_of(source)[dim]:
        ties.same(ties.axis(node, dim), ties.axis(source, dim))
    else:
        ties.part(ties.axis(source, dim), ties.axis(node, dim), index)


def tie_select(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source = tensor_inputs(node)[0]
    dim, index = select_index(node)
    for d in range(len(shape_of(source))):
        if d != dim:
            ties.same(ties.axis(node, d - (d > dim)), ties.axis(source, d))
    if index is None:
        ties.pin(source, [dim], "selected by a data-dependent index")
    else:
        ties.part(ties.axis(source, dim), None, torch.tensor([index]))


def tie_cat(node: fx.Node, ties: Ties, constants: Constants) -> None:
    dim, offset = cat_dim(node), 0
    for source in _cat_inputs(node):
        _tie_others(node, source, dim, ties)
        size = shape_of(source)[dim]
        if not is_static(shape_of(node)[dim]):
            ties.pin(source, [dim], "concatenated along a data dimension")
            continue
        piece = ties.axis(source, dim)
        ties.part(ties.axis(node, dim), piece, torch.arange(offset, offset + size))
        offset += size


def _cat_inputs(node: fx.Node) -> list[fx.Node]:
    pieces = node.args[0]
    assert isinstance(pieces, list | tuple)
    return [p for p in pieces if isinstance(p, fx.Node)]


def tie_flip(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source = tensor_inputs(node)[0]
    dims: Any = node.args[1]
    flipped = {d % len(shape_of(node)) for d in dims}
    for d, size in enumerate(shape_of(node)):
        whole, part = ties.axis(source, d), ties.axis(node, d)
        if d in flipped and is_static(size):
            ties.part(whole, part, torch.arange(size).flip(0))
        else:
            ties.same(whole, part)


def tie_roll(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source = tensor_inputs(node)[0]
    dims: Any = node.args[2]
    rolled = {d % len(shape_of(node)) for d in dims}
    for d in range(len(shape_of(node))):
        if d in rolled:
            ties.pin(source, [d], "rolled")
            ties.pin(node, [d], "rolled")
        else:
            ties.same(ties.axis(source, d), ties.axis(node, d))


def tie_repeat(node: fx.Node, ties: Ties, constants: Constants) -> None:
    """Dims repeated once are the same; the literal counts of others are left alone, so those dims are pinned."""
    source, counts = tensor_inputs(node)[0], _repeats(node)
    offset = len(counts) - len(shape_of(source))
    for d, count in enumerate(counts):
        if count == 1 and d >= offset:
            ties.same(ties.axis(node, d), ties.axis(source, d - offset))
        else:
            ties.pin(node, [d], "repeated")
            if d >= offset:
                ties.pin(source, [d - offset], "repeated")


def tie_repeat_interleave(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source, count, dim = tensor_inputs(node)[0], node.args[1], node.args[2]
    assert isinstance(count, int)
    assert isinstance(dim, int)
    dim %= len(shape_of(node))
    _tie_others(node, source, dim, ties)
    flat, piece = ties.axis(node, dim), ties.axis(source, dim)
    if flat is not None and piece is not None:
        ties.repeats.append(Repeat(piece, flat, count, node, source, dim))
    elif flat is not None:
        ties.pins[flat] = "repeated"


# --------------------------------------------------------------------------------------------------------- rules


def structural_rule(name: str, move: Move, tie: Callable[[fx.Node, Ties, Constants], None]) -> Rule:
    """The three transfer functions of an operator that only moves entries."""

    def inputs_of(node: fx.Node) -> list[fx.Node]:
        return _cat_inputs(node) if move is move_cat else tensor_inputs(node)[:1]

    def constant(node: fx.Node, constants: Constants) -> Fact:
        fake = tensor_of(node)
        assert fake is not None
        facts = [constants.fact(n) for n in inputs_of(node)]
        if not any(bool(f.const.any()) for f in facts):
            return nothing_constant(fact_shape(node), fake.dtype)
        const = move(node, [f.const.to(torch.int8) for f in facts], _smallest).bool()
        numbers = [f.value.to(torch.int8) if f.value.dtype is torch.bool else f.value for f in facts]
        low, high = (move(node, numbers, how) for how in (_smallest, _largest))
        agree = (low == high) | (torch.isnan(low) & torch.isnan(high) if low.is_floating_point() else False)
        return make_fact((const & agree).expand(fact_shape(node)), low.to(fake.dtype).expand(fact_shape(node)))

    def live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
        sources = inputs_of(node)
        if bool(live_out.all()) and move in (move_reshape, move_permute, move_expand, move_cat):
            return {s: torch.ones((), dtype=torch.bool).expand(fact_shape(s)) for s in sources}
        probes = tuple(torch.zeros(fact_shape(s)) for s in sources)
        pull: Any = torch.func.vjp(lambda *ts: move(node, ts, _sum), *probes)[1]
        result: dict[fx.Node, torch.Tensor] = {}
        for source, gradient in zip(sources, pull(live_out.to(torch.float32)), strict=True):
            result[source] = result.get(source, torch.zeros((), dtype=torch.bool)) | (gradient > 0)
        return result

    return Rule(name, constant, live, tie, tabular=True)


RESHAPE = structural_rule("reshape", move_reshape, tie_reshape)
PERMUTE = structural_rule("permute", move_permute, tie_permute)
EXPAND = structural_rule("expand", move_expand, tie_expand)
SLICE = structural_rule("slice", move_slice, tie_slice)
SELECT = structural_rule("select", move_select, tie_select)
CAT = structural_rule("cat", move_cat, tie_cat)
FLIP = structural_rule("flip", move_flip, tie_flip)
REPEAT = structural_rule("repeat", move_repeat, tie_repeat)
ROLL = structural_rule("roll", move_roll, tie_roll)
REPEAT_INTERLEAVE = structural_rule("repeat_interleave", move_repeat_interleave, tie_repeat_interleave)
