"""Plans as data: JSON there and back, refusal of anything else, and what a cut does to a tensor."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch

from passes.plan.data import Cut, Fold, HeadView, cut_tensor, merge_folds
from passes.plan.errors import PlanError
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


def test_folds_of_one_weight_become_one() -> None:
    """The first says whether the layer had a bias; columns come in order, each with its constant."""
    first, other = (
        Fold("a.weight", "a.bias", True, 1, (1, 4), (0.5, 2.0)),
        Fold("b.weight", "b.bias", False, 1, (0,), (3.0,)),
    )
    later = Fold("a.weight", "a.bias", False, 1, (0, 2), (7.0, 8.0))
    merged = Fold("a.weight", "a.bias", True, 1, (0, 1, 2, 4), (7.0, 0.5, 8.0, 2.0))
    assert merge_folds([first, other, later]) == (merged, other)


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
    with pytest.raises(PlanError, match="not a shrink plan"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("cuts", 0, "keep", "0"), [0, 3], r"cuts\[0\]\.keep\.0: indices do not ascend from 0 to below 3"),
        (("cuts", 0, "keep", "0"), [2, 0], r"cuts\[0\]\.keep\.0: indices do not ascend"),
        (("cuts", 0, "keep", "2"), [0], r"cuts\[0\]\.keep\.2: shape \(3, 2\) has no dim 2"),
        (("cuts", 0, "cleared"), [3], r"cuts\[0\]\.cleared: indices do not ascend"),
        (("cuts", 0, "cleared_dim"), -1, r"cuts\[0\]\.cleared: shape \(3, 2\) has no dim -1"),
        (("cuts", 1, "cleared_dim"), 1, r"cuts\[1\]\.cleared: shape \(3,\) has no dim 1"),  # where nothing is cleared
        (("cuts", 0, "shape", 0), 10**13, r"cuts\[0\]\.shape\[0\]: .*\(got 10000000000000\)"),
        (("cuts", 0, "shape", 0), 3.0, r"cuts\[0\]\.shape\[0\]: Input should be a valid integer"),
        (("cuts", 0, "shape", 0), True, r"cuts\[0\]\.shape\[0\]: Input should be a valid integer"),
        (("cuts", 1, "parameter"), "up.weight", r"cuts\[1\]\.parameter: 'up\.weight' is cut twice"),
        (("folds", 0, "in_dim"), 2, r"folds\[0\]\.in_dim: "),
        (("folds", 0, "constants"), [0.5, 1.0], r"folds\[0\]: 1 columns and 2 constants"),
        (("folds", 0, "columns"), [-1], r"folds\[0\]\.columns"),
        (("folds", 0, "more"), 1, r"folds\[0\]\.more: "),
        (("heads", 0, "after"), [2], r"heads\[0\]\.after"),
        (("aliases", "a"), 3, r"aliases\.a: Input should be a valid string"),
        (("attributes", "layer.0", "num_heads"), "2", r"attributes\.layer\.0\.num_heads: .*\(got '2'\)"),
    ],
)
def test_what_cannot_be_is_named(place: tuple[str | int, ...], value: object, message: str) -> None:
    data = json.loads(PLAN.to_json())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(PlanError, match=f"not a shrink plan: {message}"):
        Plan.from_json(json.dumps(data))


def test_every_entry_has_to_be_there() -> None:
    data = json.loads(PLAN.to_json())
    del data["attributes"]
    with pytest.raises(PlanError, match="attributes: missing"):
        Plan.from_json(json.dumps(data))


def test_small_shapes() -> None:
    assert PLAN.small_shape("up.weight", (3, 2)) == (2, 2)
    assert PLAN.small_shape("other.weight", (5, 5)) == (5, 5)


def test_a_cut_clears_and_selects_and_leaves_its_argument_alone() -> None:
    weight = torch.arange(1.0, 7.0).view(3, 2)
    small = cut_tensor(weight, PLAN.cuts[0])
    assert small.tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert weight.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
