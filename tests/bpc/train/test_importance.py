"""Scores that start from importance, against sums over the dense model's own gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bpc.program import Program
from bpc.spec import load_spec
from bpc.train import Trainer, start_scores
from bpc.train.importance import _ranks

Make = Callable[..., Any]
START = {"scores": {"start": "fisher", "batches": 3, "spread": 0.5}}


def batches(dataset: list[dict[str, Any]], count: int = 3) -> list[dict[str, torch.Tensor]]:
    parts = [dataset[i : i + 8] for i in range(0, 8 * count, 8)]
    return [{name: torch.tensor([row[name] for row in part]) for name in part[0]} for part in parts]


def without_dropout(program: Program) -> Program:
    for module in program.module.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return program


@pytest.mark.parametrize(("start", "power"), [("gradient", 1), ("fisher", 2)])
def test_scores_follow_the_change_of_the_loss_to_first_order(
    make_program: Make, make_model: Make, dataset: list[dict[str, Any]], start: Any, power: int
) -> None:
    program = without_dropout(make_program())
    before = {name: value.clone() for name, value in program.module.state_dict().items() if "masks" not in name}
    start_scores(program.module, program.mask_set, batches(dataset), start)
    query, up, down = (
        f"bert.encoder.layer.0.{name}.weight" for name in ("attention.self.query", "intermediate.dense", "output.dense")
    )
    dense = make_model().eval()
    blocks, dims = torch.zeros(4, 4), torch.zeros(48)
    for batch in batches(dataset):
        dense.zero_grad()
        dense(**batch).loss.backward()
        change = {name: (p * p.grad).detach() for name, p in dense.named_parameters() if p.grad is not None}
        blocks += change[query].view(4, 8, 4, 8).sum((1, 3)).abs() ** power
        dims += (change[up].sum(1) + change[down].sum(0)).abs() ** power
    for weight, expected in ((query, blocks.flatten()), (up, dims)):
        key = next(p.scores for p in program.plans if p.weight == weight).replace(".", "/")
        found = program.mask_set.scores[key].detach().flatten()
        # Some of the blocks may be nearly equal: those apart by more than rounding have to be in order.
        order = expected.argsort()
        apart = expected[order].diff() > 1e-4 * expected.abs().max()
        assert apart.sum() > 8
        assert (found[order].diff()[apart] > 0).all()
    for group in program.mask_set.groups.values():
        scores = torch.cat([program.mask_set.scores[key].flatten() for key in group])
        assert scores.abs().max() < 1
        assert scores.mean().abs() < 1e-4
    assert all(torch.equal(program.module.state_dict()[name], value) for name, value in before.items())
    assert all(p.grad is None for p in program.module.parameters())


def test_equals_share_their_rank() -> None:
    assert _ranks(torch.tensor([3.0, 0.0, 0.0, 7.0])).tolist() == [0.625, 0.25, 0.25, 0.875]


def test_a_run_begins_with_them_and_a_resumed_one_goes_on(
    make_program: Make, arguments: Make, dataset: list[dict[str, Any]]
) -> None:
    program = make_program(**START)
    seen: list[torch.Tensor] = []
    calls: list[int] = []

    class Watching(Trainer):
        def _start_scores(self) -> None:
            super()._start_scores()
            calls.append(self.state.global_step)
            seen.append(torch.cat([score.detach().flatten() for score in self.mask_set.scores.values()]))  # type: ignore[union-attr]

    options = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    Watching(program=program, args=arguments(**options), train_dataset=dataset).train()
    assert calls == [0]
    assert 0 < seen[0].abs().max() <= 0.5
    assert len(seen[0].unique()) > 100
    assert seen[0].median().abs() < 0.01
    again = make_program(**START)
    run = Watching(program=again, args=arguments(**options), train_dataset=dataset)
    run.train(resume_from_checkpoint=f"{run.args.output_dir}/checkpoint-4")
    assert calls == [0, 4]
    assert not torch.equal(seen[1], seen[0])  # what the checkpoint held
    masks, expected = again.masks(), program.masks()
    assert all(torch.equal(masks[name], expected[name]) for name in expected)


def test_what_cannot_be_measured_is_refused(make_program: Make) -> None:
    program = make_program()
    with pytest.raises(ValueError, match="measured on batches, and there are none"):
        start_scores(program.module, program.mask_set, [])
    with pytest.raises(ValueError, match="needs no batches"):
        start_scores(program.module, program.mask_set, [], "constant")
    with pytest.raises((ValidationError, ValueError), match="magnitude ranks weights, and reads no scores"):
        load_spec({"preset": "hybrid", "method": "magnitude", "scores": {"start": "fisher"}})
