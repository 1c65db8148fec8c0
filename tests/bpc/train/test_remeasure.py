"""Runs to a speed-up whose prices are wrong: what is measured on the way leads to it all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from bpc.costs import Costs
from bpc.oneshot.costs import counted
from bpc.oneshot.target import Target
from bpc.program import Program, compile
from bpc.train import Trainer, remeasure
from tests.bpc.train.test_target import SPEC

Make = Callable[..., Any]
WANTED = 1.6


@pytest.fixture
def make_timed(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Program]:
    """A program whose seconds are said to be its parameters."""

    def said(graph: fx.GraphModule, sublayers: Any, heads: Any, target: Target, alike: bool) -> tuple[Costs, float]:
        costs, _ = counted(graph, sublayers, Target(params=0.5), heads)
        return Costs(costs.fixed, costs.tables, "s", costs.shares), costs.total() / WANTED

    def make() -> Program:
        monkeypatch.setattr("bpc.pricing.measured", said)
        example = {"input_ids": torch.ones(2, 8, dtype=torch.long)}
        return compile(make_model(), SPEC, example, target=Target(speedup=WANTED))

    return make


def true_share(graph: fx.GraphModule, masks: dict[str, torch.Tensor]) -> float:
    """Of the time: less is saved than the prices say, and the less the more goes."""
    from passes import shrink

    small = shrink(graph, masks, verify=False).graph_module
    matrices = [sum(p.numel() for p in g.parameters() if p.dim() > 1) for g in (small, graph)]
    return (matrices[0] / matrices[1]) ** 0.7


def test_a_run_comes_to_the_speedup_that_is_measured(
    make_timed: Make, arguments: Make, dataset: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make_timed()
    steps: list[int] = []

    def measure(graph: fx.GraphModule, masks: dict[str, torch.Tensor], target: Target) -> float:
        assert target.speedup == WANTED
        steps.append(trainer.state.global_step)
        return 1 / true_share(graph, masks)

    monkeypatch.setattr(remeasure, "measured_speedup", measure)
    trainer = Trainer(program=program, args=arguments(max_steps=20), train_dataset=dataset)
    trainer.train()
    first, *others = steps
    assert first == 9  # the first step with c of at most a half: warm-up ends with the second, cool-down begins with 16
    assert set(others) == {16}
    assert len(others) <= remeasure.ROUNDS
    assert true_share(program.plain_graph(), program.masks()) == pytest.approx(1 / WANTED, rel=0.03)


def test_a_target_that_proves_out_of_reach_is_told(
    make_timed: Make, arguments: Make, dataset: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make_timed()
    before = program.mask_set.budget.prices.clone()
    said: list[str] = []
    monkeypatch.setattr(remeasure, "measured_speedup", lambda *_: 1.05)
    monkeypatch.setattr("bpc.train.progress.PruningProgress.say", lambda self, text: said.append(text))
    Trainer(program=program, args=arguments(), train_dataset=dataset).train()
    assert torch.equal(program.mask_set.budget.prices, before)
    assert said[0].startswith("measured 1.05× where the prices say 1.6")
    assert said[0].endswith("what the spec masks does not reach 1.6×, so prices stay as they are")


def test_a_measurement_that_fails_leaves_the_run_and_its_prices(
    make_timed: Make, arguments: Make, dataset: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, settings = make_timed(), arguments(disable_tqdm=False, logging_strategy="no")
    before = program.mask_set.budget.prices.clone()

    def fail(*_: Any) -> float:
        raise RuntimeError("the clock is broken")

    said: list[str] = []
    monkeypatch.setattr(remeasure, "measured_speedup", fail)
    monkeypatch.setattr("bpc.train.progress.PruningProgress.say", lambda self, text: said.append(text))
    Trainer(program=program, args=settings, train_dataset=dataset).train()
    assert torch.equal(program.mask_set.budget.prices, before)
    assert len(said) == 2
    assert "the clock is broken" in said[0]
    assert program.mask_set.budget.is_frozen
