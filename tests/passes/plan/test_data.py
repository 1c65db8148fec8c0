"""Plans as data: JSON there and back, refusal of anything else, and what a cut does to a tensor."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch

from passes.plan.data import Cut, Fold, HeadView, cut_tensor
from passes.plan.plan import Plan

PLAN = Plan(
    cuts=(Cut("up.weight", (3, 2), {0: (0, 2)}, (2,), 0), Cut("up.bias", (3,), {0: (0, 2)})),
    folds=(Fold("down.weight", "down.bias", True, 1, (1,), (0.5,)),),
    constants=("linear_1",),
    heads=(HeadView("q.weight", 0, (4, 8), (2, 8)),),
    aliases={"head.weight": "embedding.weight"},
    attributes={"layer.0": {"num_heads": 2}},
)


def test_plans_survive_json() -> None:
    text = PLAN.to_json()
    assert Plan.from_json(text) == PLAN
    assert Plan.from_json(json.dumps(json.loads(text))).to_json() == text


def test_plans_are_pickled_as_data() -> None:
    plan = replace(PLAN, origin=object())  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    assert again.origin is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2}', '{"format": 1, "cuts": [{}]}', PLAN.to_json().replace("parameter", "name")],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Plan.from_json(text)


def test_small_shapes() -> None:
    assert PLAN.small_shape("up.weight", (3, 2)) == (2, 2)
    assert PLAN.small_shape("other.weight", (5, 5)) == (5, 5)


def test_a_cut_clears_and_selects_and_leaves_its_argument_alone() -> None:
    weight = torch.arange(1.0, 7.0).view(3, 2)
    small = cut_tensor(weight, PLAN.cuts[0])
    assert small.tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert weight.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
