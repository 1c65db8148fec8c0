"""How fast scores learn."""

from __future__ import annotations

import pytest
from torch import nn

from bpc.scores import MaskPlan, MaskSet, MaskSettings
from bpc.train import score_learning_rate, score_parameters, weight_parameters
from bpc.train.scores import travel_distance
from passes.structure.role import Role


@pytest.mark.parametrize(("steps", "expected"), [(1800, 0.029), (110_000, 0.01), (10, 0.3)])
def test_score_learning_rate_fits_the_run(steps: int, expected: float) -> None:
    assert score_learning_rate(steps) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("threshold", "initial", "distance"), [(0.1, 0.0, 2.197), (0.1, 2.0, 4.197), (0.9, 0.0, 0.5), (0.0, 0.0, 2.2)]
)
def test_scores_travel_to_where_they_are_pruned(threshold: float, initial: float, distance: float) -> None:
    assert travel_distance(threshold, initial) == pytest.approx(distance, abs=1e-3)


def test_parameters_are_told_apart_for_a_hand_written_loop() -> None:
    class FFN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.frozen = nn.Linear(4, 6), nn.Linear(6, 4).requires_grad_(False)

    plan = MaskPlan("up.weight", None, (6, 4), (1, 4), "up.weight", 0, Role.FFN_UP, "ffn")
    model, masks = FFN(), MaskSet([plan], MaskSettings())
    masks.attach(model)
    group = score_parameters(masks, 0.2)
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.0)
    assert [id(p) for p in group["params"]] == [id(score) for score in masks.scores.values()]
    weights = {id(p) for p in weight_parameters(model, masks)}
    assert weights == {id(model.up._parameters[name]) for name in ("weight", "bias")}
