from __future__ import annotations

import torch

from passes.masks.binarize import expand_blocks, keep_highest


def test_expand_repeats_each_entry_over_its_block() -> None:
    mask = torch.tensor([[True, False, True]])
    expected = torch.tensor([[1, 1, 0, 0, 1, 1]] * 3, dtype=torch.bool)
    assert torch.equal(expand_blocks(mask, (3, 2)), expected)


def test_the_highest_are_kept_none_to_all() -> None:
    scores = torch.tensor([[3.0, 1.0], [2.0, 2.0]])
    assert keep_highest(scores, 1).tolist() == [[True, False], [False, False]]
    assert [int(keep_highest(scores, count).sum()) for count in (-1, 0, 3, 9)] == [0, 0, 3, 4]
