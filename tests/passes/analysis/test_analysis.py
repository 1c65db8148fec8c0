"""One analysis, three verbs: facts computed once and when asked for, options that reach the keep-sets, what failed."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from passes.analysis import analysis as module_under_test
from passes.analysis.analysis import analyse
from passes.ops import pieces, pointwise
from passes.options import ShrinkOptions
from passes.plan.data import Cut, Fold, HeadView
from tests.passes.sketch import NAN, Sketch, keeps, matrix

aten = torch.ops.aten
LINEAR, RESHAPE = aten.linear.default, aten.reshape.default


def two_heads(reads: object) -> tuple[fx.GraphModule, fx.Node]:
    """x -> up -> 2 heads of 4 dims -> relu -> down; (graph, wide value). ``reads``: the dims that down reads."""
    sketch = Sketch()
    wide = sketch.call(LINEAR, sketch.input("b", 3), sketch.weight("up", matrix(8, 3)))
    heads = sketch.call(aten.relu.default, sketch.call(RESHAPE, wide, [-1, 2, 4]))
    columns = torch.tensor(reads).double().flatten()
    down = sketch.weight("down", matrix(2, 8) * columns)
    return sketch.done(sketch.call(LINEAR, sketch.call(RESHAPE, heads, [-1, 8]), down)), wide


def test_facts_are_computed_when_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for name in ("Liveness", "least_keeps", "choose_keeps"):
        real = getattr(module_under_test, name)
        monkeypatch.setattr(
            module_under_test, name, lambda *given, real=real, name=name: made.append(name) or real(*given)
        )
    found = analyse(two_heads([[1, 0, 0, 0], [0, 1, 0, 0]])[0])
    assert made == []
    assert found.cuts()
    assert found.cuts() == found.cuts()
    assert found.head_views()
    assert made == ["Liveness", "choose_keeps"]
    assert found.least is found.least
    assert made == ["Liveness", "choose_keeps", "least_keeps"]


def test_a_dead_sublayer_keeps_one_index_but_nothing_at_the_least() -> None:
    graph, wide = two_heads([[0] * 4, [0] * 4])
    found = analyse(graph)
    assert keeps(found.least, wide, 1) == [False] * 8
    assert keeps(found.coupling, wide, 1) == [True] + [False] * 7


def test_options_reach_both_keep_sets() -> None:
    graph, wide = two_heads([[1, 0, 0, 0], [0, 0, 0, 0]])
    for granularity, multiple, least, chosen in (("dims", 1, 1, 1), ("dims", 2, 1, 2), ("heads", 1, 4, 4)):
        found = analyse(graph, options=ShrinkOptions(granularity, multiple))  # type: ignore[arg-type]
        assert sum(keeps(found.least, wide, 1)) == least
        assert sum(keeps(found.coupling, wide, 1)) == chosen
    assert analyse(graph).options == ShrinkOptions()


def test_what_is_cut_and_how_heads_are_viewed_is_what_the_axes_keep() -> None:
    found = analyse(two_heads([[1, 0, 0, 0], [0, 1, 0, 0]])[0])
    assert found.cuts() == (Cut("up", (8, 3), {0: (0, 5)}), Cut("down", (2, 8), {1: (0, 5)}))
    assert found.head_views() == (HeadView("down", 1, (2, 4), (2, 1)), HeadView("up", 0, (2, 4), (2, 1)))


def test_weights_that_fold_are_named_and_others_are_not() -> None:
    sketch = Sketch()
    x, y = sketch.fixed(sketch.input("b", 2), [3.0, NAN]), sketch.input("b", 2, name="y")
    outputs = [sketch.call(LINEAR, n, sketch.weight(w, matrix(2, 2))) for n, w in ((y, "plain"), (x, "folds"))]
    assert analyse(sketch.done(*outputs)).folds() == (Fold("folds", "folds_folded_bias", True, 1, (0,), (3.0,)),)


def test_facts_hold_no_history_of_the_weights() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [3.0, NAN])
    graph = sketch.done(x).requires_grad_()
    fact = analyse(graph, read=graph.get_parameter).constants.fact(x)
    assert fact.value.tolist() == [[3.0, 0.0]]
    assert not fact.value.requires_grad


def test_masks_and_the_reader_of_weights_are_asked_and_nothing_is_written() -> None:
    graph, wide = two_heads([[1] * 4, [1] * 4])
    before = {name: p.clone() for name, p in graph.named_parameters()}
    read: list[str] = []
    down = torch.ones(2, 8, dtype=torch.bool)
    down[:, 4:] = False

    def reader(name: str) -> torch.Tensor:
        read.append(name)
        return graph.get_parameter(name)

    found = analyse(graph, {"down": down}, reader)
    assert keeps(found.coupling, wide, 1) == [True] * 4 + [False] * 4
    assert found.cuts()
    assert set(read) == {"up", "down"}
    assert all(torch.equal(p, before[name]) for name, p in graph.named_parameters())


def test_operators_with_the_default_are_named_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*arguments: object) -> None:
        raise IndexError("not written for this")

    sketch = Sketch()
    x = sketch.input("b", 3)
    for target in (aten.triu.default, aten.tril.default, aten.relu.default, aten.relu.default, aten.tril.default):
        x = sketch.call(target, x)
    rolled = sketch.call(aten.roll.default, sketch.call(aten.roll.default, x, [1]), [1], [1])  # the first has no rule
    monkeypatch.setitem(pointwise.POINTWISE.__dict__, "constant", stumble)
    monkeypatch.setitem(pieces.ROLL.__dict__, "constant", stumble)
    assert analyse(sketch.done(rolled)).conservative() == (
        "aten.relu.default (its rule failed: IndexError: not written for this)",
        "aten.roll.default (its rule failed: IndexError: not written for this)",
        "aten.tril.default",
        "aten.triu.default",
    )
