"""The Python numbers a forward reads: found by their old values, told apart by the module that owns the projection."""

from __future__ import annotations

import copy

import pytest
from torch import nn

from passes.plan.data import HeadView, PlanData
from passes.plan.errors import ModuleViewError
from passes.plan.numbers import (
    candidate_attributes,
    changed_attributes,
    doubtful_number,
    reading_module,
    set_attributes,
)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(8, 16), nn.Linear(8, 8)
        self.heads, self.dims, self.per_group, self.other = 4, 8, 2, 3


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()


PLAN = PlanData(
    heads=(
        HeadView("attention.q.weight", 0, (4, 8), (3, 6)),
        HeadView("attention.k.weight", 0, (2, 8), (1, 6)),
    )
)


def test_candidates_are_what_the_numbers_may_have_become_likeliest_first() -> None:
    model = Model()
    first, *others = candidate_attributes(PLAN, model)
    assert first == {"attention": {"heads": 3, "dims": 6, "per_group": 1}}
    assert {"attention": {"heads": 3, "dims": 6, "per_group": 3}} in others  # query heads per key head
    assert all("other" not in numbers for c in others for numbers in c.values())
    assert doubtful_number(PLAN, model) == "attention.heads = 4"
    assert doubtful_number(PlanData(), model) is None


def test_the_module_that_owns_the_layer_reads_its_numbers() -> None:
    assert reading_module(Model(), "attention.q.weight") == "attention"
    bare = Attention()
    bare.packed = nn.Parameter(bare.q.weight.detach())
    assert reading_module(bare, "packed") == ""


def test_changed_numbers_are_set_again_and_a_missing_module_is_named() -> None:
    model = Model()
    small = copy.deepcopy(model)
    set_attributes(small, {"attention": {"heads": 3}})
    assert changed_attributes(model, small) == {"attention": {"heads": 3}}
    with pytest.raises(ModuleViewError, match="Model has no module 'nowhere', which the plan sets"):
        set_attributes(small, {"nowhere": {"heads": 3}})


def test_heads_of_a_module_that_is_not_there_are_refused() -> None:
    with pytest.raises(ModuleViewError, match=r"Model has no 'none\.q\.weight', which the plan views as heads"):
        reading_module(Model(), "none.q.weight")
