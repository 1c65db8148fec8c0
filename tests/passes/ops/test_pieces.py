"""Pieces and copies: which indices they move, and how their literal bounds follow a cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from passes.ops.arguments import argument
from passes.ops.pieces import CAT, REPEAT_INTERLEAVE, ROLL, SELECT, SLICE, select_index, slice_index
from passes.ops.table import rule_for
from tests.passes.sketch import NAN, Sketch, keeps, reason, tied

aten = torch.ops.aten
T, F = True, False


class Kept:
    """What `resize` asks of a coupling: kept indices of some dims."""

    def __init__(self, kept: dict[tuple[fx.Node, int], list[bool]]) -> None:
        self.kept = kept

    def keep(self, node: fx.Node, dim: int) -> torch.Tensor | None:
        found = self.kept.get((node, dim % node.meta["val"].dim()))
        return None if found is None else torch.tensor(found)

    def count(self, node: fx.Node, dim: int) -> int | None:
        found = self.keep(node, dim)
        return None if found is None else int(found.sum())


def test_a_slice_moves_its_indices_and_a_strided_one_stays() -> None:
    sketch = Sketch()
    x = sketch.free("b", 6)
    part, strided = sketch.call(aten.slice.Tensor, x, 1, -3, 2**40), sketch.call(aten.slice.Tensor, x, 1, 0, 6, 2)
    index = slice_index(part)
    assert index is not None
    assert index.tolist() == [3, 4, 5]
    assert slice_index(sketch.call(aten.slice.Tensor, x, 0, 0, 2)) is None  # of data
    coupling = sketch.coupling({})
    assert reason(coupling, strided, 1) == reason(coupling, x, 1) == "sliced by a data-dependent or strided range"
    sketch = Sketch()
    x = sketch.free("b", 6)
    part = sketch.call(aten.slice.Tensor, x, 1, 3, 6)
    assert keeps(sketch.coupling({part: [F, T, F]}), x, 1) == [F, F, F, F, T, F]


def test_bounds_become_counts_of_kept_indices() -> None:
    sketch = Sketch()
    x = sketch.free("b", 6)
    part, one = sketch.call(aten.slice.Tensor, x, 1, 2, 5), sketch.call(aten.select.int, x, 1, -2)
    kept = Kept({(x, 1): [T, F, T, F, T, T]})
    for rule, node in ((SLICE, part), (SELECT, one)):
        assert rule.resize is not None
        rule.resize(node, kept)
    assert part.args == (x, 1, 1, 3)
    assert one.args == (x, 1, 2)


def test_a_select_needs_its_index_while_the_graph_runs() -> None:
    sketch = Sketch()
    x = sketch.free("b", 4, 3)
    one, data = sketch.call(aten.select.int, x, 1, -1), sketch.call(aten.select.int, x, 0, 2)
    assert (select_index(one), select_index(data)) == ((1, 3), (0, None))
    coupling = sketch.coupling({one: [F, T, F]})
    assert keeps(coupling, x, 1) == [F, F, F, T]
    assert tied(coupling, (x, 2), (one, 1))


def test_a_dead_piece_of_a_concatenation_goes() -> None:
    sketch = Sketch()
    a, b = sketch.free("b", 2), sketch.free("b", 3, name="other")
    out = sketch.call(aten.cat.default, [a, b], 1)
    coupling = sketch.coupling({out: [F, F, T, F, T]})
    assert (keeps(coupling, a, 1), keeps(coupling, b, 1)) == ([F, F], [T, F, T])
    assert CAT.resize is not None
    CAT.resize(out, coupling)
    assert argument(out, "tensors") == [b]


def test_a_concatenation_along_data_is_constant_where_its_pieces_agree() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    a, b = sketch.fixed(x, [1.0, 2.0, NAN], "a"), sketch.fixed(x, [1.0, 3.0, 1.0], "b")
    out = sketch.call(aten.cat.default, [a, b], 0)
    assert sketch.constants(out).fact(out).const[0].tolist() == [T, F, F]


def test_flipped_dims_mirror_and_rolled_dims_stay() -> None:
    sketch = Sketch()
    x = sketch.free("b", 3)
    flipped = sketch.call(aten.flip.default, x, [-1])
    assert keeps(sketch.coupling({flipped: [T, F, F]}), x, 1) == [F, F, T]
    sketch = Sketch()
    x = sketch.free("b", 3)
    rolled = sketch.call(aten.roll.default, x, [1], [1])
    over_all = sketch.call(aten.roll.default, x, [1])
    assert (rule_for(rolled) is ROLL, rule_for(over_all) is ROLL) == (T, F)
    assert ROLL.live(rolled, torch.tensor([[T, F, F]]), None)[x].tolist() == [[F, F, T]]  # type: ignore[arg-type]
    sketch.graph.erase_node(over_all)
    assert reason(sketch.coupling({}), x, 1) == "rolled"


def test_interleaved_copies_keep_their_source_where_any_copy_lives() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2)
    out = sketch.call(aten.repeat_interleave.self_int, x, 2, 1)
    live: Any = REPEAT_INTERLEAVE.live(out, torch.tensor([[F, F, T, F]]), None)  # type: ignore[arg-type]
    assert live[x].tolist() == [[F, T]]
    coupling = sketch.coupling({out: [F, F, T, F]})
    assert (keeps(coupling, x, 1), keeps(coupling, out, 1)) == ([F, T], [F, F, T, F])
    flat = sketch.graph.create_node("call_function", aten.repeat_interleave.self_int, (x, 2), {})
    flat.meta["val"] = out.meta["val"]
    assert rule_for(flat) is not REPEAT_INTERLEAVE  # without a dim the value is flattened


def test_repeated_dims_stay_and_others_are_the_same() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 3)
    out = sketch.call(aten.repeat.default, x, [1, 2, 1])
    coupling = sketch.coupling({out: [F, T, F]})
    assert reason(coupling, x, 1) == reason(coupling, out, 1) == "repeated"
    assert keeps(coupling, x, 2) == [F, T, F]


def test_a_slice_of_one_index_follows_the_cut() -> None:
    sketch = Sketch()
    x = sketch.free("b", 4)
    one = sketch.call(aten.slice.Tensor, x, 1, 2, 3)
    assert SLICE.resize is not None
    SLICE.resize(one, Kept({(x, 1): [F, T, T, F]}))
    assert one.args == (x, 1, 1, 2)


def test_a_slice_up_to_a_size_of_the_data_may_read_any_channel() -> None:
    """Constant where all channels are that number; rows of data keep what their columns are."""
    sketch = Sketch()
    x = sketch.input("b", "t", 3)
    length = sketch.call(aten.sym_size.int, x, 1)
    same = sketch.call(aten.slice.Tensor, sketch.fixed(x, [2.0, 2.0, 2.0], "same"), 2, 0, length)
    other = sketch.call(aten.slice.Tensor, sketch.fixed(x, [2.0, 2.0, 3.0], "other"), 2, 0, length)
    rows = sketch.call(aten.slice.Tensor, sketch.fixed(x, [2.0, NAN, 3.0], "rows"), 1, 0, 1)
    constants = sketch.constants(same, other, rows)
    assert constants.fact(same).value.unique().tolist() == [2.0]
    assert bool(constants.fact(same).const.all())
    assert not bool(constants.fact(other).const.any())
    assert constants.fact(rows).const[0, 0].tolist() == [T, F, T]


def test_a_concatenation_of_data_pins_its_pieces() -> None:
    sketch = Sketch()
    x, y = sketch.free("t", 2), sketch.free(3, 2, name="y")
    out = sketch.call(aten.cat.default, [x, y], 0)
    coupling = sketch.coupling({out: [T, F]})
    assert reason(coupling, y, 0) == "concatenated along a data dimension"
    assert keeps(coupling, y, 1) == [T, F]


def test_a_select_drops_its_dim_in_front_of_others() -> None:
    sketch = Sketch()
    x = sketch.free("b", 4, 3, 5)
    one = sketch.call(aten.select.int, x, 1, 2)
    coupling = sketch.coupling({})
    assert tied(coupling, (x, 2), (one, 1))
    assert tied(coupling, (x, 3), (one, 2))


def test_a_selected_entry_is_constant_where_it_is_and_one_of_data_where_all_are() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2, 3), [[NAN, NAN, 5.0], [1.0, NAN, 7.0]])
    one, data = sketch.call(aten.select.int, x, 1, 1), sketch.call(aten.select.int, x, 0, 1)
    constants = sketch.constants(one, data)
    assert constants.fact(one).const[0].tolist() == [T, F, T]
    assert constants.fact(one).value[0].tolist() == [1.0, 0.0, 7.0]
    assert constants.fact(data).const.tolist() == [[F, F, T], [T, F, T]]


def test_a_concatenation_of_data_behind_channels_keeps_their_places() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3, "t")
    a, b = sketch.fixed(x, [[1.0], [2.0], [NAN]], "a"), sketch.fixed(x, [[1.0], [3.0], [1.0]], "b")
    fact = sketch.constants(out := sketch.call(aten.cat.default, [a, b], 2)).fact(out)
    assert fact.const[0, :, 0].tolist() == [T, F, F]


def test_one_channel_repeated_as_data_is_that_channel() -> None:
    """Copies of several channels, as often as the data says, would be data of channels: those get the default."""
    sketch = Sketch()
    one, two = sketch.input("b", 1), sketch.input("b", 2, name="two")
    length = sketch.call(aten.sym_size.int, sketch.input("t", name="y"), 0)
    out = sketch.call(aten.repeat_interleave.self_int, sketch.fixed(one, [3.0]), length, 1)
    other = sketch.call(aten.repeat_interleave.self_int, two, length, 1)
    assert (rule_for(out) is REPEAT_INTERLEAVE, rule_for(other) is REPEAT_INTERLEAVE) == (T, F)
    assert sketch.constants(out, other).fact(out).value.tolist() == [[3.0]]


def test_copies_of_one_channel_stay() -> None:
    sketch = Sketch()
    x = sketch.free("b", 1, 2)
    out = sketch.call(aten.repeat_interleave.self_int, x, 3, 1)
    coupling = sketch.coupling({out: [T, F]})
    assert reason(coupling, out, 1) == "repeated"
    assert keeps(coupling, x, 2) == [T, F]


def test_only_the_dim_that_is_repeated_stays() -> None:
    sketch = Sketch()
    x = sketch.free(4, 3, 5)
    out = sketch.call(aten.repeat.default, x, [1, 2, 1, 1])
    y = sketch.free(4, 3, name="y")
    columns = sketch.call(aten.repeat.default, y, [1, 2])
    coupling = sketch.coupling({out: [F, T, F, F, F]})
    assert tied(coupling, (y, 0), (columns, 0))
    assert reason(coupling, y, 0) is None
    assert reason(coupling, x, 0) == reason(coupling, out, 1) == "repeated"
    assert (reason(coupling, x, 1), reason(coupling, x, 2)) == (None, None)
    assert keeps(coupling, x, 2) == [F, T, F, F, F]


def test_repeated_constants_of_data_and_channels() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [1.0, NAN])
    length = sketch.call(aten.sym_size.int, sketch.input("t", name="y"), 0)
    rows, columns = sketch.call(aten.repeat.default, x, [3, 2]), sketch.call(aten.repeat.default, x, [5, 1, length])
    same = sketch.call(aten.repeat.default, sketch.fixed(sketch.input("b", 2, name="z"), [4.0, 4.0], "z"), [1, length])
    constants = sketch.constants(rows, columns, same)
    assert constants.fact(rows).const.tolist() == [[T, F, T, F]]
    assert not bool(constants.fact(columns).const.any())
    assert constants.fact(same).value.tolist() == [[4.0]]


def test_a_slice_takes_its_constants_along_and_leaves_other_dims_alone() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 4)
    part, all_of_it = sketch.call(aten.slice.Tensor, x, 2, 1, 3), sketch.call(aten.slice.Tensor, x, 2)
    coupling = sketch.coupling({all_of_it: [F, F, F, T]})
    assert tied(coupling, (x, 1), (part, 1), (all_of_it, 1))
    assert tied(coupling, (x, 2), (all_of_it, 2))
    assert keeps(coupling, x, 2) == [F, F, F, T]
    sketch = Sketch()
    part = sketch.call(aten.slice.Tensor, sketch.fixed(sketch.input("b", 4), [1.0, NAN, 3.0, 4.0]), 1, 1, 3)
    fact = sketch.constants(part).fact(part)
    assert (fact.const.tolist(), fact.value.tolist()) == ([[F, T]], [[0.0, 3.0]])


def test_a_select_by_a_computed_index_keeps_all_and_its_index() -> None:
    sketch = Sketch()
    x = sketch.free("b", 9)
    last = sketch.call(aten.sym_size.int, sketch.input("t", name="y"), 0)
    one, row = sketch.call(aten.select.int, x, 1, last), sketch.call(aten.select.int, x, 0, 3)
    assert select_index(one) == (1, None)
    assert reason(sketch.coupling({}), x, 1) == "selected by a computed index"
    assert SELECT.resize is not None
    for node in (one, row):
        before = node.args
        SELECT.resize(node, Kept({(x, 1): [T, F] + [T] * 7}))
        assert node.args == before


def test_dims_that_are_neither_flipped_nor_rolled_are_the_same() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 3)
    flipped, rolled = sketch.call(aten.flip.default, x, [2]), sketch.call(aten.roll.default, x, [1], [2])
    coupling = sketch.coupling({})
    assert tied(coupling, (x, 1), (flipped, 1), (rolled, 1))
    assert reason(coupling, rolled, 2) == "rolled"


def test_a_roll_by_a_computed_shift_gets_the_default() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2, 3)
    size = sketch.call(aten.sym_size.int, x, 0)
    assert rule_for(sketch.call(aten.roll.default, x, [1, size], [1, 2])) is not ROLL


def test_a_piece_of_one_entry_keeps_its_place() -> None:
    sketch = Sketch()
    a, b = sketch.free("b", 2), sketch.free("b", 1, name="other")
    out = sketch.call(aten.cat.default, [a, b], 1)
    assert keeps(sketch.coupling({out: [F, T, F]}), out, 1) == [F, T, T]
