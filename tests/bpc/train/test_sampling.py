"""Epochs in which rows of like lengths come together, alike on every rank."""

from __future__ import annotations

import torch

from bpc.train.sampling import GroupedByLength


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    lengths = [3 + 7 * i % 40 for i in range(600)]
    first, second = GroupedByLength(4, lengths, 5), GroupedByLength(4, lengths, 5)
    orders = []
    for epoch in range(3):
        first.set_epoch(epoch)
        torch.rand(epoch + 1)  # what a rank draws for itself
        orders.append(list(first))
        assert sorted(orders[-1]) == list(range(600))
    assert orders[0] != orders[1] != orders[2]
    second.set_epoch(2)
    assert list(second) == orders[2]
    assert list(GroupedByLength(4, lengths, 6)) != orders[0]
    steps = [[lengths[i] for i in orders[1][k : k + 4]] for k in range(0, 600, 4)]
    spread = sum(max(step) - min(step) for step in steps) / len(steps)
    assert spread < 3  # of 40 tokens
