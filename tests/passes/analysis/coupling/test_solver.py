"""The relations of a graph, collected and solved: what is not mentioned stays, sizes that are read stay, keeps grow."""

from __future__ import annotations

import pytest
import torch

from passes.analysis.coupling.solver import rows_for
from passes.ops import pointwise
from tests.passes.sketch import Sketch, keeps, reason, tied

aten = torch.ops.aten
T, F = True, False


def test_what_a_rule_does_not_mention_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch()
    x = sketch.free("b", 3)
    out = sketch.call(aten.relu.default, x)
    monkeypatch.setitem(pointwise.POINTWISE.__dict__, "ties", lambda node, ties, facts: None)
    coupling = sketch.coupling({})
    for value in (x, out):
        assert reason(coupling, value, 1) == "aten.relu.default does not say what becomes of it"


def test_sizes_that_the_model_reads_stay() -> None:
    sketch = Sketch()
    x, y = sketch.free("b", 2, 3), sketch.free("b", 2, 3, name="y")
    sketch.call(aten.sym_size.int, x, 1)
    sketch.call(aten.sym_numel.default, y)
    coupling = sketch.coupling({})
    assert reason(coupling, x, 1) == reason(coupling, y, 1) == reason(coupling, y, 2) == "its size is read by the model"
    assert reason(coupling, x, 2) is None


def test_inputs_outputs_and_lists_of_results_stay() -> None:
    sketch = Sketch()
    x, y = sketch.input("b", 3), sketch.free("b", 3, name="y")
    sketch.call(aten.sort.default, y)
    coupling = sketch.coupling({})
    assert reason(coupling, x, 1) == "an input of the model"
    assert reason(coupling, y, 1) == "used by an operator without a transfer rule"


def test_views_of_one_axis_in_the_same_way_are_one_and_the_module_view_keeps_heads_whole() -> None:
    for whole, expected in (("dims", [F, T, F, F, F, F]), ("heads", [T, T, T, F, F, F]), ("units", [T] * 6)):
        sketch = Sketch()
        x = sketch.free("b", 6)
        first, second = (sketch.call(aten.reshape.default, x, [-1, 2, 3]) for _ in range(2))
        coupling = sketch.coupling({first: [[F, T, F], [F, F, F]]}, whole=whole)
        assert tied(coupling, (first, 1), (second, 1))
        assert tied(coupling, (first, 2), (second, 2))
        assert keeps(coupling, x, 1) == expected


def test_keeps_grow_through_chains_of_relations() -> None:
    sketch = Sketch()
    x = sketch.free("b", 8)
    part = sketch.call(aten.slice.Tensor, x, 1, 2, 8)
    flipped = sketch.call(aten.flip.default, part, [1])
    heads = sketch.call(aten.reshape.default, flipped, [-1, 3, 2])
    coupling = sketch.coupling({heads: [[T, F], [F, F], [F, F]], x: [F] * 7 + [T]})
    assert keeps(coupling, x, 1) == [F] * 7 + [T]
    assert coupling.count(x, 1) == 1
    assert coupling.count(heads, 1) == 1
    assert coupling.count(heads, 0) is None


def test_rows_of_key_heads_serve_their_query_heads() -> None:
    rows = torch.tensor([[T, F], [F, T]])
    assert rows_for(rows, 4).tolist() == [[T, F], [T, F], [F, T], [F, T]]
    assert rows_for(rows, 2) is rows
