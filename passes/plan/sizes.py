"""Sizes that torch's and transformers' layers repeat beside their weights."""

from __future__ import annotations

from torch import nn

from passes.plan.data import Cut


def tell_sizes(owner: nn.Module, cut: Cut | None) -> None:
    """Sizes that torch's and transformers' layers repeat beside their weight, which was cut as ``cut`` says."""
    weight = owner._parameters.get("weight")
    if weight is None:
        return
    shape = tuple(weight.shape)
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = shape
    elif isinstance(owner, nn.Embedding):
        owner.num_embeddings, owner.embedding_dim = shape
    elif isinstance(owner, nn.LayerNorm | nn.RMSNorm):
        owner.normalized_shape = shape
    elif isinstance(owner, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if cut is not None and len(cut.shape) > 1 and 0 in cut.keep:
            each = cut.shape[0] // owner.groups  # output channels of a group
            owner.groups = len({channel // each for channel in cut.keep[0]})
        owner.out_channels, owner.in_channels = shape[0], shape[1] * owner.groups
    elif {"nf", "nx"} <= owner.__dict__.keys():  # transformers' Conv1D: weight is [in, out]
        owner.__dict__.update(nx=shape[0], nf=shape[1])
