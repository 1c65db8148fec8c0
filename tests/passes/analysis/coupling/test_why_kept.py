"""The reason that applies to the very place: the first of them, and for a made axis that of what it is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from passes.analysis.coupling.solver import Coupling
from passes.analysis.coupling.why_kept import ROTARY, SHARED, why_kept
from passes.ops.facts import axis
from tests.passes.sketch import Sketch

aten = torch.ops.aten
RESHAPE = aten.reshape.default
PADDING = "padding: every head keeps as many dims as the largest of its layer"
SAME_DIMS = "needed: all heads of a layer keep the same dims here"
FILLED = "needed: an axis that is in use keeps one index"
ROUNDED = "rounded up to a multiple, as asked for"
SIZE_READ = "pinned: its size is read by the model"


def number(coupling: Coupling, node: fx.Node, dim: int = 1) -> int:
    found = axis(node, dim)
    assert found is not None
    return coupling.class_of[found]


def reasons(coupling: Coupling, node: fx.Node, empty: Sequence[int], dim: int = 1) -> list[str]:
    """Why ``node`` keeps the indices ``empty`` along ``dim``."""
    asked = torch.zeros(node.meta["val"].shape[dim], dtype=torch.bool)
    asked[list(empty)] = True
    return list(why_kept(coupling, number(coupling, node, dim), asked))


def test_an_axis_gives_the_strongest_of_its_reasons() -> None:
    """Taken away one after the other, each uncovers the next."""
    sketch = Sketch()
    x = sketch.free("b", 4)
    sketch.call(aten.sym_size.int, x, 1)
    coupling = sketch.coupling({})
    mine = number(coupling, x)
    coupling.rounded[mine] = ROUNDED
    coupling.filled.add(mine)
    assert reasons(coupling, x, [1]) == [SIZE_READ]
    del coupling.pinned[mine]
    assert reasons(coupling, x, [1]) == [ROUNDED]
    coupling.rounded.clear()
    assert reasons(coupling, x, [1]) == [FILLED]
    coupling.filled.clear()
    assert reasons(coupling, x, [1]) == [SHARED]


def test_only_the_pieces_that_are_asked_about_answer() -> None:
    sketch = Sketch()
    fused = sketch.free("b", 6)
    first, second = (sketch.call(aten.slice.Tensor, fused, 1, i, i + 3) for i in (0, 3))
    sketch.call(aten.sym_size.int, first, 1)
    coupling = sketch.coupling({})
    coupling.rounded[number(coupling, second)] = ROUNDED
    assert reasons(coupling, fused, [0]) == [SIZE_READ]
    assert reasons(coupling, fused, [5]) == [ROUNDED]
    assert reasons(coupling, fused, [2, 3]) == [SIZE_READ, ROUNDED]


def test_a_piece_of_a_piece_answers_for_its_own_indices() -> None:
    sketch = Sketch()
    fused = sketch.free("b", 6)
    half = sketch.call(aten.slice.Tensor, fused, 1, 2, 6)
    first, second = (sketch.call(aten.slice.Tensor, half, 1, i, i + 2) for i in (0, 2))
    coupling = sketch.coupling({})
    coupling.rounded[number(coupling, first)] = ROUNDED
    coupling.filled.add(number(coupling, second))
    assert reasons(coupling, fused, [3]) == [ROUNDED]
    assert reasons(coupling, fused, [4]) == [FILLED]


def test_an_index_that_is_selected_has_no_piece_to_ask() -> None:
    sketch = Sketch()
    x = sketch.free("b", 3)
    sketch.call(aten.select.int, x, 1, 1)
    assert reasons(sketch.coupling({}), x, [1]) == [SHARED]


def test_flat_axes_of_heads_answer_for_heads_and_dims() -> None:
    sketch = Sketch()
    sketch.call(RESHAPE, sketch.free("b", 4, name="other"), [-1, 2, 2])
    x = sketch.free("b", 6)
    heads = sketch.call(RESHAPE, x, [-1, 2, 3])
    coupling = sketch.coupling({heads: [[True, False, False], [False, True, False]]})
    outer, inner = number(coupling, heads, 1), number(coupling, heads, 2)
    assert reasons(coupling, x, [1]) == [SAME_DIMS]
    coupling.rounded[inner] = ROUNDED
    assert reasons(coupling, x, [1]) == [ROUNDED]
    coupling.pinned[outer] = "there are two of them"
    assert reasons(coupling, x, [1]) == ["pinned: there are two of them"]
    coupling.rows[inner] = torch.tensor([[True, False, False], [False, True, False]])
    assert reasons(coupling, x, [1]) == [PADDING]


def test_the_dims_inside_heads_are_the_last_of_a_view_and_their_pieces_answer() -> None:
    sketch = Sketch()
    x = sketch.free("b", 24)
    heads = sketch.call(RESHAPE, x, [-1, 2, 3, 4])
    piece = sketch.call(aten.slice.Tensor, heads, 3, 2, 4)
    coupling = sketch.coupling({})
    coupling.rounded[number(coupling, piece, 3)] = ROUNDED
    assert reasons(coupling, x, [0]) == [ROUNDED]
    coupling.rows[number(coupling, heads, 3)] = torch.ones(6, 4, dtype=torch.bool)
    assert reasons(coupling, x, [0]) == [PADDING]


def rotated(whole: Sequence[int], shape: Sequence[int]) -> tuple[Coupling, fx.Node, fx.Node]:
    """x · cos + rotate(x) · sin on the last dim of a view of a wide value: (coupling, wide value, its view)."""
    sketch = Sketch()
    wide = sketch.free("b", *whole)
    heads = sketch.call(RESHAPE, wide, [-1, *shape]) if shape else wide
    last, half = heads.meta["val"].dim() - 1, heads.meta["val"].shape[-1] // 2
    low, high = (sketch.call(aten.slice.Tensor, heads, last, i, i + half) for i in (0, half))
    turned = sketch.call(aten.cat.default, [high, low], last)
    sketch.call(aten.add.Tensor, heads, turned)
    return sketch.coupling({}), wide, heads


def test_dims_that_rotate_into_each_other_are_named_as_such_for_heads_alone() -> None:
    coupling, wide, heads = rotated([8], [2, 4])
    assert reasons(coupling, heads, [0], dim=2) == [ROTARY]
    assert reasons(coupling, wide, [0]) == [ROTARY]
    coupling, wide, _ = rotated([4], [])
    assert ROTARY not in reasons(coupling, wide, [0])


def test_pieces_of_a_head_that_do_not_meet_do_not_rotate() -> None:
    sketch = Sketch()
    heads = sketch.call(RESHAPE, sketch.free("b", 8), [-1, 2, 4])
    for i in (0, 2):
        sketch.call(aten.slice.Tensor, heads, 2, i, i + 2)
    sketch.call(aten.select.int, heads, 2, 0)
    assert reasons(sketch.coupling({}), heads, [0], dim=2) == [SHARED]


def test_a_value_beside_its_mirror_image_answers_once() -> None:
    """x + flip(x): the class is a piece of itself."""
    sketch = Sketch()
    x = sketch.free("b", 4)
    out = sketch.call(aten.add.Tensor, x, sketch.call(aten.flip.default, x, [1]))
    coupling = sketch.coupling({out: [True, False, False, False]})
    assert reasons(coupling, x, [0, 3]) == [SHARED]
