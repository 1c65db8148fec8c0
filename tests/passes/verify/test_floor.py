"""The bound: per index, from what rounding costs the model itself."""

from __future__ import annotations

import pytest
import torch

from passes.verify.floor import FACTOR, Bounds, Sample


def sample(exact: torch.Tensor, lost: float = 1e-7, compared: torch.Tensor | None = None) -> Sample:
    noise = torch.rand(exact.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Sample((exact * (1 + lost * noise)).float(), exact, compared=compared)


def exact(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_each_channel_and_each_head_has_a_bound_of_its_own() -> None:
    for dim in (1, 2):
        value = exact(3, 4, 5)
        value.select(dim, 0).mul_(1e6)
        samples = [sample(value), sample(value[:2])]
        wrong = value.clone()
        wrong.select(dim, 2).mul_(1 + 1e-4)
        assert Bounds(samples).excess(samples[0], value)[0] == 0
        assert Bounds(samples).excess(samples[0], wrong)[0] > 10


def test_the_factor_is_what_it_says() -> None:
    one = Sample(torch.tensor([1.5], dtype=torch.float32), torch.tensor([1.0], dtype=torch.float64))
    ratio, error = Bounds([one]).excess(one, torch.tensor([1.0 + 0.5 * FACTOR]))
    assert (ratio, error) == (pytest.approx(1, rel=1e-5), 4.0)


def test_an_index_that_was_rounded_luckily_gets_what_its_neighbours_lose() -> None:
    value = exact(2, 6, 8)
    lucky = sample(value, 1e-5)
    lucky.own[..., 3] = value[..., 3].float()
    other = value.clone()
    other[..., 3] *= 1 + 1e-5
    assert Bounds([lucky]).excess(lucky, other)[0] < 1


def test_float64_has_the_floor_of_float32_in_its_own_units() -> None:
    value = exact(2, 6, 8)
    growing = Sample(value, value, (value * (1 + 1e-4)).float())
    assert Bounds([growing]).excess(growing, value * (1 + 1e-12))[0] < 1
    steady = Sample(value, value, value.float())
    assert Bounds([steady]).excess(steady, value * (1 + 1e-12))[0] > 10
    overflown = Sample(value, value, torch.full_like(value, torch.nan).float())
    assert Bounds([overflown]).excess(overflown, value * (1 + 1e-14))[0] < 1


def test_nan_is_never_within_the_bound_and_positions_left_out_always_are() -> None:
    value = exact(2, 6, 8)
    broken = value.clone()
    broken[0, 0] = torch.nan
    seen = torch.ones(2, 6, 8, dtype=torch.bool)
    seen[0, 0] = False
    assert Bounds([sample(value)]).excess(sample(value), broken)[0] == torch.inf
    blind = sample(value, compared=seen)
    assert Bounds([blind]).excess(blind, broken)[0] == 0
