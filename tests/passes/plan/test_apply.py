"""Masks and cuts on a module, by the names of its parameters."""

from __future__ import annotations

import torch
from torch import nn

from passes.plan.apply import with_masks


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
