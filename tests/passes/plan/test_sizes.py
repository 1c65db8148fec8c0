"""Layers are told the sizes of their cut weights."""

from __future__ import annotations

import torch
from torch import nn

from passes.plan.data import Cut
from passes.plan.sizes import tell_sizes


def cut(owner: nn.Module, *shape: int, how: Cut | None = None) -> nn.Module:
    owner.weight = nn.Parameter(torch.zeros(shape))
    tell_sizes(owner, how)
    return owner


def test_sizes_that_layers_repeat_follow_the_weight() -> None:
    linear, table, norm = cut(nn.Linear(4, 6), 5, 3), cut(nn.Embedding(9, 4), 9, 2), cut(nn.LayerNorm(4), 3)
    assert (linear.out_features, linear.in_features) == (5, 3)
    assert (table.num_embeddings, table.embedding_dim) == (9, 2)
    assert norm.normalized_shape == (3,)


def test_groups_of_a_convolution_are_those_whose_channels_are_left() -> None:
    """Three groups of two output channels; the middle one went."""
    how = Cut("w", (6, 2, 1), {0: (0, 1, 5)})
    convolution = cut(nn.Conv1d(6, 6, 1, groups=3), 3, 2, 1, how=how)
    assert (convolution.groups, convolution.out_channels, convolution.in_channels) == (2, 3, 4)
