"""Rows of like lengths together, in an order that does not depend on how a step is cut among ranks."""

from __future__ import annotations

from collections.abc import Iterator

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
