"""What is alive, in heads and dims."""

import dataclasses

import pytest
import torch

from bpc.scores import MaskSet
from bpc.scores.structure import Structure, live_structure
from passes.structure.role import Role
from tests.bpc.scores.plans import SETTINGS, attention_plans, ffn_plans


def test_live_structure_counts_heads_and_dims() -> None:
    masks = MaskSet([*ffn_plans(), *attention_plans()], SETTINGS)
    with torch.no_grad():
        masks.scores["up/weight"][:2] = -5.0
        masks.scores["value/weight"][0] = -5.0  # head 0: no value
        masks.scores["output/weight"][:, 3] = -5.0  # head 3: nobody reads it
        masks.scores["query/weight"][1] = -5.0  # head 1 attends uniformly: alive
    structure = live_structure(masks, final=True)
    assert (structure.heads, structure.total_heads) == ((2,), (4,))
    assert (structure.ffn_dims, structure.total_ffn_dims) == ((4,), (6,))
    assert live_structure(masks).heads == (4,), "nothing is pruned at the first threshold"
    assert masks.density(final=True) == pytest.approx((2 * 24 * 4 / 6 + 64 * 4 - 3 * 16) / (48 + 64 * 4))


def test_a_part_without_units_and_weights_of_no_part_are_not_counted() -> None:
    loose = [dataclasses.replace(plan, part="") for plan in ffn_plans()]
    scores_alone = [plan for plan in attention_plans() if plan.role in (Role.ATTENTION_QUERY, Role.ATTENTION_KEY)]
    structure = live_structure(MaskSet([*loose, *scores_alone], SETTINGS), final=True)
    assert structure == Structure((), (), (), ())
