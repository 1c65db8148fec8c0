"""Shapes of grids and score tensors."""

from __future__ import annotations

import pytest

from bpc.scores.plan import MaskPlan
from passes.structure.role import Role

Size = tuple[int, int]


@pytest.mark.parametrize(
    ("shape", "block", "out_dim", "tiles", "transposed", "expected"),
    [
        ((12, 8), (3, 2), 0, 1, False, (4, 4)),
        ((12, 8), (2, 8), 0, 2, False, (3, 1)),  # one stretch of rows
        ((8, 12), (8, 2), 1, 2, True, (3, 1)),  # one stretch of columns, shared with rows of another weight
        ((4, 6), (4, 1), 0, 1, True, (6, 1)),
    ],
)
def test_scores_cover_one_stretch_of_the_output_features(
    shape: tuple[int, int],
    block: tuple[int, int],
    out_dim: int,
    tiles: int,
    transposed: bool,
    expected: tuple[int, int],
) -> None:
    plan = MaskPlan("w", None, shape, block, "s", transposed, out_dim, Role.FFN_UP, "ffn", tiles=tiles)
    assert plan.score_shape == expected
    assert plan.grid == (shape[0] // block[0], shape[1] // block[1])
