"""Masks and cuts on a module, by the names of its parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import passes
from passes.plan.apply import apply_plan, with_masks
from passes.plan.data import Cut, Fold, PlanData
from passes.plan.errors import ModuleViewError


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
        self.head.weight = self.embedding.weight


def test_tied_weights_are_masked_under_each_of_their_names() -> None:
    model = Tied()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.inf  # times 0 it would be NaN
    before = model.head.weight.detach().clone()
    mask = torch.arange(15).view(5, 3) % 2 == 1
    aliases = dict.fromkeys(("embedding.weight", "head.weight"), "embedding.weight")
    small = with_masks(model, {"embedding.weight": mask}, aliases)
    assert small.head.weight is small.embedding.weight
    assert torch.equal(small.head.weight != 0, mask)
    assert small.head.bias is model.head.bias
    assert torch.equal(model.head.weight, before)


def test_a_computed_weight_is_refused_with_the_way_out() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).eval()
    prune.ln_structured(model[0], "weight", amount=2, n=2, dim=0)
    plan = passes.shrink(passes.trace(model, torch.randn(2, 4))).plan
    assert any(cut.parameter == "0.weight" for cut in plan.cuts)
    with pytest.raises(ModuleViewError, match=r"no parameter '0.weight'.*prune.remove"):
        plan.apply_to(model)
    x = torch.randn(5, 4)
    expected = model(x)
    prune.remove(model[0], "weight")
    small = plan.apply_to(model)
    assert small[0].out_features == 4
    torch.testing.assert_close(small(x), expected)


def test_names_that_the_model_cannot_have_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    cut = Cut("0.weight", (3, 2), {0: (0, 1)})
    for name in ("", "1", "1."):
        with pytest.raises(ModuleViewError, match=f"Sequential has no place for '{name}'"):
            apply_plan(PlanData(cuts=(cut,), aliases={name: "0.weight"}, attributes={}), model)


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (Fold("0.weight", "0.bias", False, 1, (2,), (1.0,)), r"0\.weight has shape \(3, 2\), which lacks columns"),
        (Fold("0.bias", "0.bias", False, 0, (0,), (1.0,)), r"0\.bias has shape \(3,\), which lacks columns"),
        (Fold("0.weight", "1.bias", False, 1, (0,), (1.0,)), r"1\.bias has shape \(1,\), and 0\.weight gives \(3,\)"),
    ],
)
def test_folds_that_do_not_fit_the_model_are_refused(fold: Fold, message: str) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with pytest.raises(ModuleViewError, match=message):
        apply_plan(PlanData(folds=(fold,), attributes={}), model)


def test_frozen_parameters_stay_frozen() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).eval()
    model[0].weight.requires_grad_(False)
    mask = (torch.arange(6) > 1)[:, None].expand(6, 4)
    small = passes.shrink(passes.trace(model, torch.randn(2, 4)), {"0.weight": mask}).plan.apply_to(model)
    assert small[0].weight.shape == (4, 4)
    assert [p.requires_grad for p in small.parameters()] == [False, True, True, True]
