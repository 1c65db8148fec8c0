"""A plan carried out by the checker: cuts, cleared indices and folded constants, by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from bpc.verify.plan import Difference, Plan

W = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
DATA: dict[str, Any] = {
    "cuts": [
        {"parameter": "w", "shape": [2, 3], "keep": {"1": [0, 2]}, "cleared": [1], "cleared_dim": 0},
        {"parameter": "b", "shape": [2], "keep": {"0": [0]}, "cleared": [], "cleared_dim": 0},
    ],
    "folds": [{"weight": "w", "bias": "b", "in_dim": 1, "columns": [1], "constants": [10.0]}],
    "aliases": {"tied": "w"},
}
MASKED = {"w": W, "tied": W, "b": torch.tensor([0.5, 0.25]), "other": torch.tensor([7])}
CONSTANTS = [torch.tensor([10.0], dtype=torch.float64)]


def small(name: str, plan: dict[str, Any] = DATA) -> tuple[list[Any], list[Any]]:
    value, terms = Plan.read(plan).small(name, MASKED, CONSTANTS)
    return value.tolist(), terms.tolist()


def test_weights_are_cut_and_cleared_under_every_name() -> None:
    expected = [[1.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]
    assert small("w") == small("tied") == expected
    assert small("other") == ([7], [0])  # as it is, whatever its dtype


def test_a_bias_takes_the_constants_and_says_how_large_its_terms_were() -> None:
    assert small("b") == ([0.5 + 2.0 * 10.0], [0.5 + 20.0])
    turned = {**DATA, "cuts": [], "folds": [{**DATA["folds"][0], "in_dim": 0}]}
    value, _ = Plan.read(turned).small("b", {"w": W.t().contiguous().t()[:, :2], "b": torch.zeros(2)}, CONSTANTS)
    assert value.tolist() == [40.0, 50.0]  # row 1 of a weight stored as (in, out)


def test_a_layer_without_a_bias_gets_one() -> None:
    masked = {name: tensor for name, tensor in MASKED.items() if name != "b"}
    value, _ = Plan.read({**DATA, "cuts": []}).small("b", masked, CONSTANTS)
    assert value.tolist() == [20.0, 50.0]
    with pytest.raises(Difference, match="the small model has nowhere, which neither"):
        Plan.read(DATA).small("nowhere", masked, CONSTANTS)


def test_what_is_gone_is_what_was_cut_cleared_or_folded() -> None:
    assert Plan.read(DATA).gone("w", W).tolist() == [[False, True, False], [True, True, True]]
    uncut = Plan.read({**DATA, "cuts": []})
    assert uncut.gone("w", W).tolist() == [[False, True, False]] * 2  # the folded column


def test_a_model_of_other_shapes_is_a_difference() -> None:
    with pytest.raises(Difference, match=r"the plan cuts w from \(2, 3\); the masked model has \(3, 2\)"):
        Plan.read(DATA).small("w", {"w": W.t()}, CONSTANTS)


@pytest.mark.parametrize("columns", [[1, 1], [-1], [2, 0]])
def test_indices_that_do_not_ascend_are_no_plan(columns: list[int]) -> None:
    fold = {**DATA["folds"][0], "columns": columns, "constants": [1.0] * len(columns)}
    with pytest.raises(Difference, match="indices of w do not ascend within its size"):
        Plan.read({**DATA, "folds": [fold]})


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("cuts", lambda cut: cut["keep"]["1"].append(99)),
        ("cuts", lambda cut: cut["keep"]["1"].reverse()),
        ("cuts", lambda cut: cut.pop("shape")),
        ("folds", lambda fold: fold["constants"].append(0.0)),
        ("folds", lambda fold: fold.update(columns="all")),
        ("folds", lambda fold: fold.update(in_dim=2)),
    ],
)
def test_a_plan_that_makes_no_sense_is_a_difference(entry: str, change: Any) -> None:
    plan = copy.deepcopy(DATA)
    assert Plan.read(plan).folds
    change(plan[entry][0])
    with pytest.raises(Difference, match="the plan cannot be read"):
        Plan.read(plan)


@pytest.mark.parametrize(
    ("field", "value"), [("in_dim", True), ("in_dim", 1.0), ("columns", [True]), ("columns", [1.0]), ("in_dim", 2)]
)
def test_what_only_passes_for_a_whole_number_is_refused(field: str, value: object) -> None:
    with pytest.raises(Difference, match="the plan cannot be read"):
        Plan.read({**DATA, "folds": [{**DATA["folds"][0], field: value}]})
