"""What padding costs, beside the formula written with numpy."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bpc.scores import MaskPlan, MaskSet, MaskSettings, Schedule
from bpc.scores.fragmentation import fragmentation
from passes.structure.role import Role

STRETCHES = ((0, 3, 2), (6, 3, 4))  # 3 heads of 2 dims of queries and keys, and of 4 dims of values
numbers = st.lists(st.floats(-4, 4), min_size=18, max_size=18)


def by_hand(scores: np.ndarray, kept: np.ndarray) -> float:
    sigma = 1 / (1 + np.exp(-scores))
    alive = kept[6:].reshape(3, 4).any(1)
    total = 0.0
    for full in (sigma[:6].reshape(3, 2).sum(1)[alive], sigma[6:].reshape(3, 4).sum(1)[alive]):
        if len(full):
            total += len(full) * math.log(np.exp(full).mean()) - full.sum()
    return total / 18


@given(numbers, st.lists(st.booleans(), min_size=18, max_size=18))
def test_it_is_the_formula_and_never_below_zero(scores: list[float], kept: list[bool]) -> None:
    given_scores = torch.tensor(scores, dtype=torch.float64)[:, None].requires_grad_()
    found = fragmentation(given_scores, torch.tensor(kept), STRETCHES)
    found.backward()
    assert given_scores.grad is not None
    assert bool(given_scores.grad.isfinite().all())
    assert found.item() == pytest.approx(by_hand(np.array(scores), np.array(kept)), abs=1e-12)
    assert found.item() >= -1e-12


def test_the_fullest_head_gives_and_the_others_get() -> None:
    scores = torch.tensor([5.0, 5.0, 5.0, -5.0, -5.0, -5.0, 5.0, -5.0])[:, None].requires_grad_()
    fragmentation(scores, torch.ones(8, dtype=torch.bool), ((0, 2, 4),)).backward()
    assert scores.grad is not None
    gradient = scores.grad[:, 0].view(2, 4)
    assert bool((gradient[0] > 0).all())
    assert bool((gradient[1] < 0).all())


def test_dims_that_all_heads_share_are_never_padded() -> None:
    scores = torch.randn(6, 1)
    assert fragmentation(scores, torch.ones(6, dtype=torch.bool), ((0, 1, 2), (2, 1, 4))) == 0
    assert fragmentation(scores, torch.ones(6, dtype=torch.bool), ()) == 0


def test_it_counts_beside_the_dims_that_are_kept() -> None:
    plan = MaskPlan(
        "output.weight", None, (4, 8), (4, 1), "s", 0, Role.ATTENTION_OUTPUT, "attention", units=tuple(range(8)),
        unit_count=8, stretches=((0, 2, 4),), heads=2,
    )  # fmt: skip
    settings = MaskSettings(schedule=Schedule(0.0, 0.1, 0.0, 0.0), regularization={"attention": 10.0})
    without, with_it = (MaskSet([plan], dataclasses.replace(settings, fragmentation=f)) for f in (0.0, 2.0))
    for masks in (without, with_it):
        with torch.no_grad():
            masks.scores["s"][:3] = -3.0
        masks.set_progress(0.5)
    expected = fragmentation(with_it.scores["s"], torch.ones(8, dtype=torch.bool), ((0, 2, 4),))
    torch.testing.assert_close(
        with_it.regularization() - without.regularization(), 2.0 * 10.0 * (1 - 0.5**3) * expected
    )
