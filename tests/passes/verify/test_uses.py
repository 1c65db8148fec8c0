"""What an input is to a graph: an index below a table's size, a mask of scores, or neither."""

from __future__ import annotations

import torch

from passes.verify.uses import Use, use_of
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def test_an_index_is_below_the_smallest_table_it_reads() -> None:
    sketch = Sketch()
    ids, positions = (sketch.input("b", "t", dtype=torch.int64, name=n) for n in ("ids", "positions"))
    sketch.call(aten.embedding.default, sketch.weight("large", matrix(9, 2)), ids)
    moved = sketch.call(aten.transpose.int, ids, 0, 1)
    sketch.call(aten.embedding.default, sketch.weight("small", matrix(4, 2)), moved)
    sketch.call(aten.index.Tensor, sketch.weight("grid", matrix(5, 7)), [None, positions])
    assert use_of(ids) == Use(table=4)
    assert use_of(positions) == Use(table=7)


def test_a_mask_reaches_the_scores_by_sums_alone() -> None:
    sketch = Sketch()
    x, bias, scale = (sketch.input("b", "t", "t", name=n) for n in ("x", "bias", "scale"))
    named = sketch.input("b", "t", name="padding_mask")
    shifted = sketch.call(aten.add.Tensor, x, bias)
    sketch.call(aten.softmax.int, sketch.call(aten.mul.Tensor, shifted, scale), -1)
    assert not use_of(scale).hides
    assert not use_of(bias).hides  # multiplied on the way
    sketch.call(aten.softmax.int, shifted, -1)
    assert use_of(bias) == Use(hides=True)
    assert use_of(named) == Use(named=True)


def test_the_table_itself_is_no_index() -> None:
    sketch = Sketch()
    table, ids = sketch.input(4, 2, name="table"), sketch.input("b", dtype=torch.int64, name="ids")
    sketch.call(aten.embedding.default, table, ids)
    assert (use_of(table).table, use_of(ids).table) == (None, 4)
