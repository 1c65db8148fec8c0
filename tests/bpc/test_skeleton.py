"""Sizes are compared before anything is allocated, and models that never end are not built."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from bpc.skeleton import check_sizes
from passes.plan.data import Cut, PlanData

PLAN = PlanData(cuts=(Cut("0.weight", (4, 3), {0: (0, 2)}), Cut("0.bias", (4,), {0: (0, 2)})))
STORED = {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (5, 2), "1.bias": (5,)}


def build(config: SimpleNamespace) -> nn.Module:
    later = nn.Linear(2, 5) if config.rows == 4 else nn.Linear(config.rows, 5)
    return nn.Sequential(nn.Linear(3, config.rows), later, *(nn.Linear(1, 1) for _ in range(config.more)))


def test_what_fits_passes() -> None:
    check_sizes(build, SimpleNamespace(rows=4, more=0), STORED, [PLAN])


@pytest.mark.parametrize(
    ("rows", "more", "plans", "message"),
    [
        (10**12, 0, [PLAN], r"0\.weight is \(1000000000000, 3\) by config\.json; the plan was made for \(4, 3\)"),
        (4, 10**9, [PLAN], "config.json makes more than 1016 weights"),
        (4, 0, [], r"0\.weight is \(2, 3\) in the file; config\.json and the plan make \(4, 3\) of it"),
        (
            10**12,
            0,
            [PlanData(cuts=(Cut("0.weight", (10**12, 3), {0: (0, 1)}), Cut("0.bias", (10**12,), {0: (0, 1)})))],
            r"1\.weight is \(5, 2\) in the file",
        ),
    ],
)
def test_what_does_not_is_named(rows: int, more: int, plans: list[PlanData], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_sizes(build, SimpleNamespace(rows=rows, more=more), STORED, plans)


def test_a_model_far_beyond_its_file_is_not_built() -> None:
    huge = PlanData(cuts=(Cut("weight", (10**9, 3), {0: (0, 1)}), Cut("bias", (10**9,), {0: (0, 1)})))
    stored = {"weight": (2, 3), "bias": (2,)}
    with pytest.raises(ValueError, match=r"config\.json makes a model of 4,000,000,000 entries, and the file holds 8"):
        check_sizes(lambda config: nn.Linear(3, 10**9), None, stored, [huge])
