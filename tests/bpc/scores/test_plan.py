"""Shapes of grids and score tensors."""

from __future__ import annotations

import pytest

from bpc.scores.plan import MaskPlan
from passes.structure.role import Role

Size = tuple[int, int]


@pytest.mark.parametrize(
    ("shape", "block", "units", "expected"),
    [
        ((12, 8), (3, 2), None, (4, 4)),
        ((12, 8), (2, 8), (0, 1, 2, 0, 1, 2), (3, 1)),  # two stretches of rows
        ((8, 12), (8, 2), (2, 2, 1, 1, 0, -1), (3, 1)),
    ],
)
def test_scores_are_a_grid_or_one_for_each_unit(
    shape: tuple[int, int], block: tuple[int, int], units: tuple[int, ...] | None, expected: tuple[int, int]
) -> None:
    plan = MaskPlan("w", None, shape, block, "s", 0, Role.FFN_UP, "ffn", units=units, unit_count=3)
    assert plan.score_shape == expected
    assert plan.grid == (shape[0] // block[0], shape[1] // block[1])
