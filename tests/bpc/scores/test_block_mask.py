"""Masks of one linear layer."""

import dataclasses

import pytest
import torch
from torch import nn

from bpc.scores import BlockMask, Schedule
from tests.bpc.scores.plans import SETTINGS, attention_plans, ffn_plans


def test_bias_of_a_row_dies_with_its_last_block_only() -> None:
    plan = attention_plans()[0]
    scores = nn.Parameter(torch.zeros(4, 4))
    mask = BlockMask(plan, scores, schedule=SETTINGS.schedule)
    with torch.no_grad():
        scores[1] = -5.0
        scores[2, 1:] = -5.0
    assert mask.bias_mask().tolist() == [True, True, False, False, True, True, True, True]


def test_output_features_in_the_second_dim_mask_the_bias_by_columns() -> None:
    plan = dataclasses.replace(attention_plans()[0], out_dim=1)  # a Conv1D
    scores = nn.Parameter(torch.zeros(4, 4))
    with torch.no_grad():
        scores[:, 3] = -5.0
    assert BlockMask(plan, scores).bias_mask().tolist() == [True] * 6 + [False] * 2


def test_score_shapes_that_do_not_fit_name_the_weight() -> None:
    with pytest.raises(ValueError, match=r"up\.weight"):
        BlockMask(ffn_plans()[0], nn.Parameter(torch.zeros(2, 2)))


def test_the_floor_keeps_the_best_blocks_whatever_the_threshold() -> None:
    scores = nn.Parameter(torch.arange(-24.0, -8.0).view(4, 4))
    mask = BlockMask(attention_plans()[0], scores, schedule=Schedule(0.0, 0.5, 0.0, 0.0), min_kept=0.25)
    assert mask.kept_blocks(final=True).tolist() == [[False] * 4] * 3 + [[True] * 4]
