"""Products that fit only because torch broadcasts them are noticed; those that the model has itself are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import passes
from passes.plan.apply import apply_plan
from passes.plan.broadcast import accidental_broadcast
from passes.plan.errors import ModuleViewError


class Attention(nn.Module):
    """As BART writes it: one head size for q, k and v."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16, bias=False) for _ in range(4))
        self.head_dim, self.fused = 8, fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], -1, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        else:
            mixed = torch.matmul((q @ k.transpose(2, 3)).softmax(-1), v)
        return self.o(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))


@pytest.mark.parametrize("fused", [True, False])
def test_one_head_of_scores_for_two_of_values_is_no_module_view(fused: bool) -> None:
    torch.manual_seed(0)
    model = Attention(fused).double().eval()
    x = torch.randn(3, 5, 16).double()
    with torch.no_grad():
        model.v.weight[:8] = 0  # one head is left
        model.q.weight[12:] = 0  # and 4 dims of 8 in its scores, 8 in its values
    plan = passes.shrink(passes.trace(model, x), verify=False).plan
    assert plan.origin is not None
    with pytest.raises(ModuleViewError, match="which fit only because torch broadcasts them"):
        apply_plan(plan, model, check=plan.origin.example())
    view = plan.view(model)
    assert (view.granularity, view.module.head_dim, view.module.q.weight.shape) == ("even", 8, (4, 16))
    with torch.no_grad():
        torch.testing.assert_close(view.module(x), model(x))


class Own(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y


def test_what_the_model_broadcasts_itself_is_no_accident() -> None:
    x, y = torch.randn(1, 2, 3), torch.randn(4, 3, 2)
    assert accidental_broadcast(Own(), Own(), lambda own: own(x, y)) is None
