"""The order of rows, which does not depend on how a step is cut among ranks, nor on where a run was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class GroupedByLength(LengthGroupedSampler):
    """`LengthGroupedSampler`, whose order follows from the seed and the epoch alone.

    transformers' own draws from the process's random numbers: ranks that drop out other activations than each other
    would soon read other epochs, and a run that goes on within its second epoch another than the one it left.

    Args:
        step: rows of an optimizer step, on all ranks.
        lengths: of all rows.
    """

    def __init__(self, step: int, lengths: list[int], seed: int) -> None:
        super().__init__(step, lengths=lengths)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader when an epoch begins."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()


def begin_epoch(loader: Any, epoch: int) -> None:
    """Tell the sampler at the bottom of a data loader which epoch begins.

    accelerate's ``set_epoch`` does not reach it once a loader is both cut among ranks and told to skip what a
    checkpoint has seen: a run resumed on several ranks would read the first epoch's order again.
    """
    while (inner := getattr(loader, "batch_sampler", None)) is not None:
        loader = inner
    sampler: Any = getattr(loader, "sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
