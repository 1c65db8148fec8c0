"""Masks that follow a target: against a simulation that tries every threshold, and over a run's whole life."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from bpc.costs import Costs
from bpc.scores import MaskSet, MaskSettings, Schedule
from bpc.scores.binarize import Method
from bpc.scores.structure import live_structure
from bpc.scores.units import Features, Units
from tests.bpc.scores.plans import FFN, attention_plans, ffn_plans

# An FFN of 6 dims at 3 each; four heads at 10, of which values and scores bear 40 % each; 7 for the rest.
COSTS = Costs(
    7.0, {"ffn.0": np.arange(7) * 3.0, "attention.0": np.arange(5) * 10.0}, "parameters", {"attention.0": (0.4, 0.4)}
)
WHOLE, SCHEDULE = 65.0, Schedule(0.0, 0.1, 0.1, 0.2)


def units() -> list[Units]:
    dims, heads = torch.arange(6).view(6, 1, 1), torch.arange(8).view(4, 1, 2)
    values = (Features("output.weight", 1, heads), Features("value.weight", 0, heads))
    scores = (Features("query.weight", 0, heads), Features("key.weight", 0, heads))
    ffn = (Features("up.weight", 0, dims), Features("down.weight", 1, dims))
    return [Units("ffn.0", "ffn", 6, ffn), Units("attention.0", "attention", 4, values, scores)]


def made(wanted: float, method: Method = "sigmoid_threshold", seed: int = 0, **settings: float) -> MaskSet:
    masks = MaskSet([*ffn_plans(), *attention_plans()], MaskSettings(method, SCHEDULE, {"ffn": 1.0}, **settings))
    masks.spend(units(), COSTS, wanted)
    draw(masks, seed)
    return masks


def ffn_alone(wanted: float) -> tuple[FFN, MaskSet]:
    model, masks = FFN(), MaskSet(ffn_plans(), MaskSettings(schedule=SCHEDULE, regularization={"ffn": 1.0}))
    masks.spend(units()[:1], Costs(0.0, {"ffn.0": COSTS.tables["ffn.0"]}, "parameters"), wanted)
    draw(masks, 0)
    masks.attach(model)
    return model, masks


def draw(masks: MaskSet, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for score in masks.scores.values():
            score.normal_(generator=generator)


def cost_of(masks: dict[str, torch.Tensor]) -> float:
    """The price of what masks leave, counted in the masks."""
    dims = int((masks["up.weight"].any(1) & masks["down.weight"].any(0)).sum())
    value = (masks["value.weight"].any(1) & masks["output.weight"].any(0)).view(4, 2)
    score = (masks["query.weight"].any(1) & masks["key.weight"].any(1)).view(4, 2)
    alive = value.any(1)
    if not alive.any():
        return 7.0 + 3.0 * dims
    widths = [max(1, int(part[alive].sum(1).max())) / 2 for part in (value, score)]
    return 7.0 + 3.0 * dims + 10.0 * int(alive.sum()) * (1 - 0.4 * (1 - widths[0]) - 0.4 * (1 - widths[1]))


def simulated(scores: dict[str, torch.Tensor], allowed: float) -> dict[str, torch.Tensor]:
    """The masks of the lowest threshold that costs at most ``allowed``, found by trying all; then FFN dims alone."""

    def masks(common: float, dims: float) -> dict[str, torch.Tensor]:
        found = {f"{n}.weight": (scores[f"{n}/weight"] > common).repeat_interleave(2, 0).repeat_interleave(2, 1)
                 for n in ("query", "key", "value", "output")}  # fmt: skip
        rows = scores["up/weight"] > dims
        return {**found, "up.weight": rows.expand(6, 4), "down.weight": rows.t().expand(4, 6)}

    levels = sorted({-np.inf, *(float(v) for s in scores.values() for v in s.flatten())})
    common = next(level for level in levels if cost_of(masks(level, level)) <= allowed)
    dims = next(level for level in levels if cost_of(masks(common, level)) <= allowed)
    return masks(common, dims)


def test_every_step_of_a_run_is_the_simulated_one() -> None:
    """Scores wander; the cost follows the cubic and never exceeds it by anything, nor stays below it by a dim."""
    masks = made(30.0)
    distinct = set()
    for step in range(40):
        draw(masks, step // 4)
        masks.set_progress(step / 40)
        c = 1 - min(1.0, max(0.0, (step / 40 - 0.1) / 0.7))
        allowed = 30.0 + (WHOLE - 30.0) * c**3
        if masks.budget is not None and masks.budget.is_frozen:
            break
        found = masks.masks(final=False)
        expected = simulated({k: s.detach() for k, s in masks.scores.items()}, allowed)
        for name, mask in expected.items():
            assert torch.equal(found[name], mask), (step, name)
        assert masks.budget is not None
        assert masks.budget.cost() == pytest.approx(cost_of(found))
        assert masks.budget.cost() <= allowed + 1e-9
        distinct.add(masks.budget.cost())
    assert step >= 31
    assert len(distinct) > 8


@pytest.mark.parametrize("method", ["sigmoid_threshold", "topk"])
@pytest.mark.parametrize("wanted", [20.0, 33.3, 50.0])
def test_the_end_is_within_one_dim_of_the_target_and_stays(method: Method, wanted: float) -> None:
    masks = made(wanted, method)
    masks.set_progress(0.8)
    budget = masks.budget
    assert budget is not None
    assert budget.is_frozen
    frozen = masks.masks()
    assert wanted - 3.0 < cost_of(frozen) <= wanted or not frozen["up.weight"].any() or frozen["up.weight"].all()
    assert budget.cost() == budget.cost(final=True) == pytest.approx(cost_of(frozen))
    draw(masks, 7)
    masks.set_progress(1.0)
    assert all(torch.equal(mask, frozen[name]) for name, mask in masks.masks().items())
    assert masks.regularization() == 0.0
    masks.set_progress(0.3)  # another run
    assert not budget.is_frozen
    assert any(not torch.equal(mask, frozen[name]) for name, mask in masks.masks().items())


def test_evaluation_shows_what_would_be_compiled_and_follows_the_scores() -> None:
    model, masks = ffn_alone(9.0)
    masks.set_progress(0.0)
    model.train()
    assert bool((model.up.weight != 0).all())
    model.eval()
    dead = (model.up.weight == 0).all(1)
    assert torch.equal(dead, ~masks.masks()["up.weight"].any(1))
    assert int(dead.sum()) == 3
    with torch.no_grad():
        masks.scores["up/weight"][dead] += 100.0
    assert bool((model.up.weight[dead] != 0).all())
    assert live_structure(masks, final=True).ffn_dims == (3,)


def test_equal_scores_can_be_told_apart() -> None:
    masks = made(33.0)
    with torch.no_grad():
        for score in masks.scores.values():
            score.zero_()
    masks.set_progress(1.0)
    assert 30.0 < cost_of(masks.masks()) <= 33.0


def test_a_floor_stays_whatever_it_costs() -> None:
    assert made(20.0).budget.reach() == (7.0, WHOLE)  # type: ignore[union-attr]
    least, _ = made(20.0, min_kept=0.5).budget.reach()  # type: ignore[union-attr]
    masks = made(least, min_kept=0.5)
    masks.set_progress(1.0)
    assert cost_of(masks.masks()) == pytest.approx(least)
    assert int(masks.masks()["up.weight"].any(1).sum()) == 3


def test_frozen_masks_and_prices_are_part_of_the_state() -> None:
    first, second = made(30.0), made(50.0, seed=3)
    first.set_progress(0.9)
    draw(first, 5)  # scores that no longer count
    second.load_state_dict(first.state_dict())
    assert second.budget is not None
    assert second.budget.is_frozen
    assert second.budget.wanted == 30.0
    expected = first.masks()
    for other in (second, copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert all(torch.equal(mask, expected[name]) for name, mask in other.masks().items())
    early = made(30.0)
    early.set_progress(0.5)
    second.load_state_dict(early.state_dict())
    assert not second.budget.is_frozen
    assert all(torch.equal(m, early.masks(False)[n]) for n, m in second.masks(False).items())


def test_scores_get_gradients_until_the_masks_are_frozen() -> None:
    model, masks = ffn_alone(9.0)
    model.train()
    for progress, any_left in ((0.5, True), (0.9, False)):
        masks.set_progress(progress)
        masks.zero_grad()
        (model(torch.randn(3, 4)).sum() + masks.regularization()).backward()
        gradient = masks.scores["up/weight"].grad
        assert gradient is not None
        assert bool(gradient.any()) is any_left
        stored = model.up._parameters["weight"]
        assert stored is not None
        assert stored.grad is not None
        assert bool(stored.grad.any())


def test_prices_can_be_corrected_by_what_a_structure_costs() -> None:
    """What the masks would leave costs what was measured; the whole model, and the target, what they did."""
    masks = made(40.0)
    masks.set_progress(0.5)
    budget = masks.budget
    assert budget is not None
    left = masks.masks()
    said = budget.cost(final=True) / WHOLE
    assert budget.correct(1.1 * said)
    assert (budget.costs().total(), budget.wanted) == (pytest.approx(WHOLE), 40.0)
    frozen = masks.masks()
    assert sum(int(m.sum()) for m in frozen.values()) < sum(int(m.sum()) for m in left.values())
    # The same structure as before, at the new prices.
    saved = WHOLE - cost_of(frozen)
    assert budget.cost(final=True) == pytest.approx(WHOLE - saved * (1 - 1.1 * said) / (1 - said))
    other = made(40.0)
    other.load_state_dict(masks.state_dict())
    assert other.budget is not None
    assert other.budget.costs().total() == pytest.approx(WHOLE)
    assert other.budget.cost(final=True) == budget.cost(final=True)


@pytest.mark.parametrize("share", [1.0, 1.3, 0.95])
def test_a_correction_that_leaves_no_way_to_the_target_is_refused(share: float) -> None:
    masks = made(10.0)
    masks.set_progress(0.5)
    budget = masks.budget
    assert budget is not None
    before, left = budget.prices.clone(), masks.masks()
    assert not budget.correct(share)
    assert torch.equal(budget.prices, before)
    assert all(torch.equal(mask, left[name]) for name, mask in masks.masks().items())
