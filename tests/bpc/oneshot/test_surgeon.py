"""The order of removal against refits of every candidate, on the data themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpc.oneshot.surgeon import removal_order

OUT = 3


def error(x: torch.Tensor, weight: torch.Tensor, kept: torch.Tensor, penalty: float) -> float:
    """The least squared error of the output, and of the penalty, when only the ``kept`` features may be read."""
    if not kept.any():
        return float((x @ weight.T).square().sum() + penalty * weight.square().sum())
    rows = torch.cat([x, penalty**0.5 * torch.eye(x.shape[1], dtype=x.dtype)])
    wanted = rows @ weight.T
    return float((rows[:, kept] @ torch.linalg.lstsq(rows[:, kept], wanted).solution - wanted).square().sum())


@settings(max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3]))
def test_every_step_removes_what_costs_least(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = 6 * size
    mixed = torch.randn(features, features, generator=generator, dtype=torch.float64)
    x = torch.randn(80, features, generator=generator, dtype=torch.float64) @ mixed
    weight = torch.randn(OUT, features, generator=generator, dtype=torch.float64)
    penalty = 0.1
    order = removal_order(weight, x.T @ x + penalty * torch.eye(features, dtype=torch.float64), size)
    assert sorted(order.tolist()) == list(range(6))
    alive = torch.ones(6, dtype=torch.bool)
    for unit in order.tolist():
        costs = {}
        for candidate in alive.nonzero().flatten().tolist():
            kept = alive.clone()
            kept[candidate] = False
            costs[candidate] = error(x, weight, kept.repeat_interleave(size), penalty)
        assert costs[unit] == pytest.approx(min(costs.values()), rel=1e-6, abs=1e-9)
        alive[unit] = False


def test_several_go_at_once_where_a_share_says_so() -> None:
    weight = torch.arange(1.0, 11.0, dtype=torch.float64)[None]
    order = removal_order(weight, torch.eye(10, dtype=torch.float64), 1, share=0.5)
    assert order.tolist() == list(range(10))


def test_twins_do_not_both_go_first() -> None:
    """Two features that carry the same may lose one of them for nothing, and then not the other."""
    x = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 1] = x[:, 0]
    weight = torch.tensor([[5.0, 5.0, 1.0]], dtype=torch.float64)
    order = removal_order(weight, x.T @ x + 1e-3 * torch.eye(3, dtype=torch.float64), 1).tolist()
    assert order[0] in (0, 1)
    assert order[1] == 2
