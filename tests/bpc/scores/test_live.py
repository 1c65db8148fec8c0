"""Heads and dims that masks leave, by the kind of matrix that says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bpc.scores.live import Inner, live_units


def bits(text: str) -> Tensor:
    return torch.tensor([c == "1" for c in text])


@pytest.mark.parametrize(
    ("matrices", "expected"),
    [
        ([Inner("query", bits("0000"), 2), Inner("value", bits("0100"), 2)], "10"),
        ([Inner("value", bits("1100"), 2), Inner("output", bits("0011"), 2)], "00"),
        ([Inner("qkv", bits("000000001100"), 2), Inner("output", bits("1111"), 2)], "11"),  # of unknown layout
        ([Inner("value", bits("0101"), 2), Inner("output", bits("11110000"), 4)], "1100"),  # grouped
        ([Inner("value", bits("0001"), 2), Inner("output", bits("11110011"), 4)], "0001"),
        ([Inner("up", bits("1101")), Inner("gate", bits("1011")), Inner("down", bits("1111"))], "1001"),
        ([Inner("gate_up", bits("110101"), tiles=2), Inner("down", bits("111"))], "100"),
        ([Inner("query", bits("11"), 2), Inner("key", bits("11"), 2)], None),
        ([Inner("value", bits("11"))], None),
    ],
)
def test_what_lives(matrices: list[Inner], expected: str | None) -> None:
    alive = live_units(matrices)
    assert (None if alive is None else alive.tolist()) == (None if expected is None else bits(expected).tolist())
