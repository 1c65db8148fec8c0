"""Numbers drawn for an input are like its example's."""

from __future__ import annotations

import pytest
import torch

from passes.verify.uses import Use
from passes.verify.values import draw, repeat_example, shown_value


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("example", "visible"),
    [
        ([[True, True, True], [True, True, False]], True),  # Hugging Face: 1 is seen
        ([[False, True, True], [True, True, True]], True),  # padded on the left
        ([[False, False, False], [False, True, True]], False),  # torch: True is padding
        ([[True, False, False], [False, False, False]], False),
        ([[False, False, False], [False, False, False]], False),
    ],
)
def test_fresh_masks_hide_what_the_example_hides(example: list[list[bool]], visible: bool) -> None:
    assert shown_value(torch.tensor(example)) is visible
    mask = draw(torch.tensor(example), (20, 5), Use(), generator())
    assert bool((mask[:, 0] == visible).all())
    assert bool((mask != visible).any())
    left = draw(torch.tensor(example), (20, 5), Use(), generator(), padded_left=True)
    assert bool((left[:, -1] == visible).all())
    assert bool((left[:, 0] != visible).any())


def test_narrow_indices_come_from_all_of_the_table_wide_ones_from_their_range() -> None:
    assert draw(torch.zeros(2, 3, dtype=torch.long), (50, 9), Use(table=4), generator()).unique().tolist() == [
        0, 1, 2, 3,
    ]  # fmt: skip
    wide = draw(torch.tensor([[5, 40]]), (50, 9), Use(table=50), generator())
    assert (int(wide.min()), int(wide.max())) == (5, 40)


def test_floats_of_zeros_are_noise_unless_they_mask() -> None:
    zeros = torch.zeros(2, 3)
    assert len(draw(zeros, (4, 5), Use(), generator()).unique()) == 20
    assert set(draw(zeros, (4, 5), Use(hides=True), generator()).unique().tolist()) == {0.0, torch.finfo().min}
    half = draw(zeros.half(), (4, 5), Use(named=True), generator())
    assert set(half.unique().tolist()) == {0.0, torch.finfo(torch.float16).min}


def test_float_masks_of_zeros_and_ones_stay_so() -> None:
    example = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    assert set(draw(example, (8, 5), Use(), generator()).unique().tolist()) == {0.0, 1.0}


def test_the_example_is_repeated_and_cut() -> None:
    assert repeat_example(torch.arange(6).view(2, 3), (3, 2)).tolist() == [[0, 1], [3, 4], [0, 1]]
