"""The price of masks is that of the compiled model; targets out of reach are refused with what can be reached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import bpc
from bpc.oneshot.batches import trace_example
from bpc.oneshot.target import Target, TargetError
from bpc.pricing import Priced, aim, price
from bpc.program import Program
from tests.bpc.oneshot.models import made

HYBRID = {
    "rules": [
        {"roles": "attention.*", "block": [4, 8]},  # heads have eight dims: half of one can go
        {"roles": "ffn.*", "block": [1, "in_features"], "paired": True},
    ]
}
BLOCKS = {"rules": [{"roles": ["attention.*", "ffn.*"], "block": [4, 4]}]}


def program(name: str, spec: Any, target: Target | float) -> Program:
    model, batches = made(name)
    found = bpc.compile(model, spec, trace_example(model, batches[0]), target=target)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for score in found.mask_set.scores.values():
            score.normal_(generator=generator)
    return found


def matrices(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() > 1)


@pytest.mark.parametrize(
    ("name", "spec", "density"),
    [
        ("bert", HYBRID, 0.4),
        ("bert", "struct", 0.2),  # where a sublayer dies
        ("gpt2", BLOCKS, 0.4),  # one weight for queries, keys and values
        ("albert", HYBRID, 0.5),  # one weight for all layers
    ],
)
def test_what_masks_cost_is_what_the_small_model_holds(name: str, spec: Any, density: float) -> None:
    found = program(name, spec, Target(density=density))
    budget = found.mask_set.budget
    assert budget is not None
    found.set_progress(1.0)
    graph = found.plain_graph()
    vectors = sum(p.numel() for p in graph.parameters() if p.dim() < 2)
    small = matrices(found.shrink(verify=False).graph_module)
    assert small == budget.cost() - vectors
    prunable = budget.costs().total() - budget.costs().fixed
    assert budget.wanted - 0.02 * prunable <= budget.cost() <= budget.wanted


def test_a_target_out_of_reach_is_refused_with_what_can_be_reached() -> None:
    model, batches = made("bert")
    example = trace_example(model, batches[0])
    with pytest.raises(TargetError, match=r"^20% of the prunable weights cannot .* ask for density from 0\.\d+ to 1$"):
        bpc.compile(model, {**HYBRID, "floor": 0.5}, example, target=Target(density=0.2))
    found = bpc.compile(model, "heads", example, target=Target(density=0.5))  # the model is as it was
    budget = found.mask_set.budget
    assert budget is not None
    assert {units.family for units in budget.units} == {"attention"}  # the only ones with masks
    least, whole = budget.reach()
    for target, ask in (
        (Target(params=0.3), f"params from {least / whole:.3f} to 1"),
        (Target(bytes=1000), f"at least {least:,.0f} bytes"),
        (Target(speedup=9.0), f"a speed-up from 1 to {whole / least:.2f}"),
    ):
        with pytest.raises(TargetError, match=f"ask for {ask}$"):
            aim(found.mask_set, Priced(budget.units, budget.costs(), 1.0), target)
    with pytest.raises(TargetError, match="masks no attention and no feed-forward network"):
        price(found.plain_graph(), found.roles, [], Target(density=0.5))
