"""A coarse plan takes a finer one's cuts where a linear layer holds them by itself."""

from __future__ import annotations

import pytest
from torch import nn

from passes.plan.data import Cut, PlanData, Spread
from passes.plan.errors import PlanError
from passes.plan.refine import refine


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.o, self.norm = nn.Linear(4, 6), nn.Linear(6, 4), nn.LayerNorm(6)


COARSE = PlanData(cuts=(Cut("q.weight", (6, 4), {0: (0, 2, 3, 4)}), Cut("q.bias", (6,), {0: (0, 2, 3, 4)})))


def fine(rows: tuple[int, ...], bias: tuple[int, ...] | None = None) -> PlanData:
    cuts = (Cut("q.weight", (6, 4), {0: rows}), Cut("q.bias", (6,), {0: rows if bias is None else bias}))
    return PlanData(cuts=(*cuts, Cut("o.weight", (4, 6), {1: rows}), Cut("norm.weight", (6,), {0: rows})))


def test_places_are_counted_in_what_the_forward_sees() -> None:
    refined = refine(COARSE, fine((2, 4)), Model())
    assert refined.spreads == (Spread("q.weight", 0, 4, (1, 3)), Spread("o.weight", 1, 6, (2, 4)))
    assert [refined.small_shape(*tensor) for tensor in (("q.weight", (6, 4)), ("q.bias", (6,)))] == [(2, 4), (2,)]
    assert PlanData.from_json(refined.to_json()) == refined
    assert "spreads" not in COARSE.plain()


def test_what_the_coarse_plan_dropped_stays_away_and_one_index_is_left() -> None:
    for rows, place in (((1, 2), 1), ((1, 5), 0)):
        assert refine(COARSE, fine(rows), Model()).spreads[0] == Spread("q.weight", 0, 4, (place,))


def test_a_layer_stays_as_it_is_where_the_finer_plan_is_not_finer() -> None:
    assert refine(COARSE, fine((2, 4), bias=(2, 3)), Model()).spreads == (Spread("o.weight", 1, 6, (2, 4)),)
    tied = PlanData(COARSE.cuts, aliases={"q.weight": "q.weight", "head.weight": "q.weight"})
    assert refine(tied, fine((2, 4)), Model()).spreads == (Spread("o.weight", 1, 6, (2, 4)),)
    assert refine(COARSE, COARSE, Model()) is COARSE


@pytest.mark.parametrize("spread", [Spread("q.weight", 0, 9, (1, 3)), Spread("k.weight", 0, 4, (1, 3))])
def test_places_without_a_cut_are_a_damaged_plan(spread: Spread) -> None:
    refined = refine(COARSE, fine((2, 4)), Model())
    with pytest.raises(PlanError, match=r"spreads\[0\]: its places are not those of a cut of '[qk]\.weight'"):
        PlanData.from_json(PlanData(refined.cuts, spreads=(spread,)).to_json())
