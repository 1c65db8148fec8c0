"""The search against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpc.costs import Costs, Widths
from bpc.oneshot.ladder import Ladder, Width
from bpc.oneshot.search import Selection, choices, search, widths
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import TargetError
from passes.structure.role import Family


def sublayer(name: str, count: int, size: int = 1) -> Sublayer:
    family = Family.FFN if size == 1 else Family.ATTENTION
    return Sublayer(name, family, f"{name}.weight", None, 0, (name,), size, count, (f"{name}.weight",))


def problem(counts: list[int], losses: list[list[float]]) -> tuple[list[Sublayer], dict[str, Ladder], Costs]:
    layers = [sublayer(str(i), count) for i, count in enumerate(counts)]
    ladders = {
        layer.name: Ladder(tuple(range(layer.count)), dict(enumerate(np.cumsum(row[: layer.count])[::-1].tolist())))
        for layer, row in zip(layers, losses, strict=True)
    }
    costs = Costs(10.0, {layer.name: np.arange(layer.count + 1) * (1.0 + i) for i, layer in enumerate(layers)}, "s")
    return layers, ladders, costs


@settings(max_examples=40)
@given(st.data())
def test_nothing_within_the_budget_loses_less(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    losses = [data.draw(st.lists(st.floats(0.01, 1), min_size=4, max_size=4)) for _ in counts]
    layers, ladders, costs = problem(counts, losses)
    budget = 10 + data.draw(st.floats(0.0, 1.0)) * (costs.total() - 10)
    found = search(layers, ladders, costs, budget, multiple=1).kept
    assert costs.total(found) <= budget + 1e-9

    def loss(kept: dict[str, int]) -> float:
        return sum(float(ladders[name].loss([k])[0]) for name, k in kept.items())

    # A bin is a 4000th of the budget: what only fits by less than the layers' bins together may be missed.
    slack = len(counts) * (budget - 10) / 4000
    best = min(
        loss(kept)
        for combination in itertools.product(*(range(layer.count + 1) for layer in layers))
        if costs.total(kept := {layer.name: k for layer, k in zip(layers, combination, strict=True)}) <= budget - slack
        or not any(combination)
    )
    assert loss(found) <= best + 1e-9


def test_everything_stays_where_it_may() -> None:
    layers, ladders, costs = problem([3, 4], [[0.1] * 4, [0.1] * 4])
    assert search(layers, ladders, costs, costs.total(), multiple=1) == Selection({"0": 3, "1": 4})


def test_a_budget_below_what_stays_is_refused() -> None:
    layers, ladders, costs = problem([3], [[0.1] * 4])
    with pytest.raises(TargetError, match="less than the 10 s that stay"):
        search(layers, ladders, costs, 9.0)


def test_dims_go_in_multiples_and_heads_one_by_one() -> None:
    assert choices(sublayer("f", 20), 8) == [0, 8, 16, 20]
    assert choices(sublayer("a", 3, size=8), 8) == [0, 1, 2, 3]


def test_a_ladder_never_gains_by_keeping_less() -> None:
    ladder = Ladder(tuple(range(10)), {0: 0.5, 4: 0.1, 6: 0.2})
    assert ladder.loss([0, 4, 5, 6, 8, 10]).tolist() == pytest.approx([0.5, 0.2, 0.2, 0.2, 0.1, 0.0])
    assert ladder.kept(3).nonzero().flatten().tolist() == [7, 8, 9]
    assert not ladder.kept(0).any()


def narrowing(values: bool = True, keys: bool = True) -> Ladder:
    def width(loss: float) -> Width:
        return Width(torch.eye(8, dtype=torch.float64)[None], {2: 4 * loss, 4: 2 * loss, 6: loss})

    return Ladder((0, 1, 2, 3), {0: 9.0, 2: 4.0}, width(0.1) if values else None, width(0.2) if keys else None)


def test_widths_that_may_be_chosen() -> None:
    assert widths(Ladder((0,), {}), 1, alike=False) == [None]
    assert widths(narrowing(keys=False), 1, alike=True) == [None]
    assert widths(narrowing(keys=False), 4, alike=False) == [None, Widths(4, 8, 8)]
    assert widths(narrowing(), 3, alike=True) == [None, Widths(3, 3, 8), Widths(6, 6, 8)]
    assert len(widths(narrowing(), 4, alike=False)) == 4
    assert narrowing().values.loss(3) == pytest.approx(0.3)  # type: ignore[union-attr]
    assert narrowing().values.loss(1) == np.inf  # type: ignore[union-attr]


@settings(max_examples=20)
@given(st.floats(0.05, 1.0), st.booleans())
def test_narrow_heads_cost_and_lose_what_the_formula_says(share: float, alike: bool) -> None:
    layers = [sublayer("a", 4, size=8), sublayer("f", 4)]
    ladders = {"a": narrowing(), "f": Ladder((0, 1, 2, 3), {0: 3.0})}
    tables = {"a": np.arange(5) * 3.0, "f": np.arange(5) * 1.0}
    costs = Costs(10.0, tables, "s", {"a": (0.5, 0.4)})
    budget = 10 + share * 16
    found = search(layers, ladders, costs, budget, multiple=2, alike=alike)
    assert costs.total(found.kept, found.widths) <= budget + 1e-9

    def loss(heads: int, values: int, keys: int, dims: int) -> float:
        wide = {2: 4, 4: 2, 6: 1, 8: 0}
        narrow = heads / 4 * (0.1 * wide[values] + 0.2 * wide[keys])
        return float(ladders["a"].loss([heads])[0]) + narrow + float(ladders["f"].loss([dims])[0])

    every = (2, 4, 6, 8)
    best = min(
        loss(heads, values, keys, dims)
        for heads, values, keys, dims in itertools.product(range(5), every, every, (0, 2, 4))
        if (
            (values == keys or not alike)
            and 3 * heads * (1 - 0.5 * (1 - values / 8) - 0.4 * (1 - keys / 8)) + dims <= (share - 2 / 4000) * 16
        )
        or not heads + dims
    )
    width = found.widths.get("a", Widths(8, 8, 8))
    assert loss(found.kept["a"], width.values, width.keys, found.kept["f"]) <= best + 1e-9
