"""Lookups: all rows of a table must agree, all of its positions count, and indices are read and pinned."""

from __future__ import annotations

import pytest
import torch

from passes.ops.lookup import EMBEDDING, GATHER, INDEX
from tests.passes.sketch import Sketch, keeps, reader, reason, tied

aten = torch.ops.aten
T, F = True, False
TABLE = [[1.0, 2.0, 3.0], [1.0, 5.0, 3.0]]


def test_an_embedding_is_constant_where_all_its_rows_agree() -> None:
    sketch = Sketch()
    ids, table = sketch.input("b", "t", dtype=torch.int64), sketch.weight("table", TABLE)
    out = sketch.call(aten.embedding.default, table, ids)
    fact = sketch.constants(out).fact(out)
    assert fact.const[0, 0].tolist() == [T, F, T]
    assert fact.value[0, 0].tolist() == [1.0, 0.0, 3.0]


def test_an_embedding_reads_the_columns_of_every_position() -> None:
    """Position 0 reads column 0 and position 2 column 2: a table that forgot all but the first would lose column 2."""
    sketch = Sketch()
    ids, table = sketch.input("b", 3, dtype=torch.int64), sketch.weight("table", TABLE)
    out = sketch.call(aten.embedding.default, table, ids)
    live_out = torch.tensor([[[T, F, F], [F, F, F], [F, F, T]]])
    assert EMBEDDING.live(out, live_out, None)[table].tolist() == [[T, F, T]] * 2  # type: ignore[arg-type]
    coupling = sketch.coupling({out: live_out})
    assert keeps(coupling, table, 1) == [T, F, T]
    assert reason(coupling, table, 0) == "rows looked up by index"
    assert reason(coupling, out, 1) == "an index"


def test_index_select_reads_all_rows_and_its_index() -> None:
    sketch = Sketch()
    x, index = sketch.input("b", 4, 3), sketch.input(2, dtype=torch.int64, name="index")
    out = sketch.call(
        aten.index_select.default, sketch.fixed(x, [[1.0, 2, 3], [1, 2, 4], [1, 2, 3], [1, 2, 3]]), 1, index
    )
    liveness = sketch.liveness(reader(sketch, out, [0.0, 0.0, 1.0]))
    fact = liveness.constants.fact(out)
    assert fact.const[0].tolist() == [[T, T, F], [T, T, F]]
    assert bool(liveness.of(index).all())
    source = out.args[0]
    assert isinstance(source, torch.fx.Node)
    assert liveness.of(source)[0].tolist() == [[F, F, T]] * 4


def test_index_select_pins_what_it_looks_up_and_ties_the_rest() -> None:
    sketch = Sketch()
    x, index = sketch.free("b", 4, 3), sketch.weight("index", torch.tensor([0, 2]))
    out = sketch.call(aten.index_select.default, x, 1, index)
    coupling = sketch.coupling({out: [F, T, F]})
    assert reason(coupling, x, 1) == reason(coupling, out, 1) == "looked up by index"
    assert reason(coupling, index, 0) == "an index"
    assert keeps(coupling, x, 2) == keeps(coupling, out, 2) == [F, T, F]


def test_an_index_that_is_expanded_expands_to_less() -> None:
    sketch = Sketch()
    source, rows = sketch.free("b", 4, 3), sketch.input("b", 4, 1, dtype=torch.int64, name="index")
    index = sketch.call(aten.expand.default, rows, [-1, -1, 3])
    out = sketch.call(aten.gather.default, source, 1, index)
    coupling = sketch.coupling({out: [F, T, F]})
    assert keeps(coupling, source, 2) == keeps(coupling, index, 2) == keeps(coupling, out, 2) == [F, T, F]
    assert tied(coupling, (index, 2), (out, 2))
    sketch = Sketch()
    source, index = sketch.free("b", 4, 3), sketch.input("b", 4, 3, dtype=torch.int64, name="index")
    out = sketch.call(aten.gather.default, source, 1, index)
    assert keeps(sketch.coupling({out: [F, T, F]}), index, 2) == [T, T, T]  # an input keeps its size
    assert keeps(sketch.coupling({out: [F, T, F]}), source, 2) == [F, T, F]


def test_a_gather_from_fewer_rows_mixes_the_dim_it_crops() -> None:
    sketch = Sketch()
    source, index = sketch.free("b", 4, 3), sketch.input("b", 2, 3, dtype=torch.int64, name="index")
    out = sketch.call(aten.gather.default, source, 2, index)
    coupling = sketch.coupling({})
    assert reason(coupling, source, 1) == reason(coupling, source, 2) == "gathered by a computed index"
    live = GATHER.live(out, torch.tensor([[[F, F, F], [F, T, F]]]), None)  # type: ignore[arg-type]
    assert live[source].shape == (1, 4, 3)
    assert bool(live[source].all())
    assert live[index].tolist() == [[[F, F, F], [F, T, F]]]  # an index is read where its result is


def test_indexing_the_first_dim_keeps_the_others_apart_and_a_mask_does_not() -> None:
    sketch = Sketch()
    source, rows = sketch.free(4, 3), sketch.input("b", "t", dtype=torch.int64, name="rows")
    out = sketch.call(aten.index.Tensor, source, [rows])
    both = sketch.call(aten.index.Tensor, source, [rows, rows])
    live = INDEX.live(out, torch.tensor([[[F, T, F]]]), None)  # type: ignore[arg-type]
    assert live[source].tolist() == [[F, T, F]] * 4
    assert bool(INDEX.live(both, torch.tensor([[F]]), None)[source].all())  # type: ignore[arg-type]
    assert reason(sketch.coupling({}), source, 1) == "gathered by a computed index"
    sketch.graph.erase_node(both)
    coupling = sketch.coupling({out: [F, T, F]})
    assert keeps(coupling, source, 1) == [F, T, F]
    assert reason(coupling, source, 0) == "rows looked up by index"


@pytest.mark.parametrize("target", [aten.embedding.default, aten.index.Tensor])
def test_an_index_that_is_written_down_stays(target: torch._ops.OpOverload) -> None:
    sketch = Sketch()
    sketch.input("b")
    table, index = sketch.weight("table", TABLE), sketch.weight("index", torch.tensor([0, 1, 1]))
    out = sketch.call(target, table, index if target is aten.embedding.default else [index])
    coupling = sketch.coupling({})
    assert reason(coupling, index, 0) == reason(coupling, out, 0) == "an index"


def test_an_index_that_is_expanded_elsewhere_covers() -> None:
    sketch = Sketch()
    source, rows = sketch.free("b", 4, 3), sketch.input("b", 1, 3, dtype=torch.int64, name="index")
    out = sketch.call(aten.gather.default, source, 1, sketch.call(aten.expand.default, rows, [-1, 4, -1]))
    coupling = sketch.coupling({out: [F, T, F]})
    assert keeps(coupling, source, 2) == keeps(coupling, out, 2) == [F, T, F]  # the input is selected at its use
    sketch = Sketch()
    source, index = sketch.free(2, 4, 3), sketch.weight("index", torch.zeros(2, 4, 3, dtype=torch.int64))
    out = sketch.call(aten.gather.default, source, 1, index)
    assert keeps(sketch.coupling({out: [F, T, F]}), index, 2) == [F, T, F]


def test_rows_by_index_are_constant_where_all_rows_agree() -> None:
    sketch = Sketch()
    rows, table = sketch.input("b", "t", dtype=torch.int64, name="rows"), sketch.weight("table", TABLE)
    one, two = sketch.call(aten.index.Tensor, table, [rows]), sketch.call(aten.index.Tensor, table, [rows, rows])
    constants = sketch.constants(one, two)
    assert constants.fact(one).const[0, 0].tolist() == [T, F, T]
    assert constants.fact(one).value[0, 0].tolist() == [1.0, 0.0, 3.0]
    assert not bool(constants.fact(two).const.any())
