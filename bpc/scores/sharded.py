"""Masks of a module whose parameters FSDP2 (``fully_shard``) has cut among ranks.

In a forward, FSDP2 puts the gathered parameter where the shard was, and the mask reads that one. Scores are one number
a block: they stay whole on every rank, so that thresholds and targets see all of them, and their gradients are averaged
here, as FSDP2 averages those of the weights.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed._composable.contract import REGISTRY_KEY, RegistryItem
from torch.distributed.tensor import DTensor

from bpc import ranks

_AVERAGED = "_bpc_averaged"
Kind = TypeVar("Kind", bound=type[nn.Module])


def stays_whole(kind: Kind) -> Kind:
    """A class of modules that ``fully_shard`` passes by, as it does those of torch's ``replicate``."""
    setattr(kind, REGISTRY_KEY, {"replicate": RegistryItem()})
    return kind


def check_shard(owner: nn.Module, name: str, parameter: DTensor) -> None:
    """Raise RuntimeError for a distributed parameter that a forward would see as it is: masks read whole ones.

    FSDP2 itself looks at the shards that it holds, along one dimension of its mesh.
    """
    *others, last = parameter.placements
    held = getattr(owner, "_is_fsdp_managed_module", False)
    if not (held and last.is_shard() and all(placement.is_replicate() for placement in others)):
        raise RuntimeError(
            f"{name!r} of a {type(owner).__name__} is a part of a tensor ({parameter.placements}), and its mask reads "
            "whole ones: with tensor parallelism a program cannot be trained. FSDP2 (fully_shard) works"
        )


def average_gradients(scores: Tensor) -> None:
    """From now on, the gradient of ``scores`` is the mean over ranks of what each has found, after every backward.

    What earlier micro-batches of a step have left there is the same on all ranks, and stays itself.
    """
    if not getattr(scores, _AVERAGED, False):
        scores.register_post_accumulate_grad_hook(_average)
        setattr(scores, _AVERAGED, True)


def _average(scores: Tensor) -> None:
    with torch.no_grad():
        assert scores.grad is not None
        ranks.average([scores.grad])
