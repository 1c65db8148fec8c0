"""Heads and dims that masks leave, by the kind of matrix that says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bpc.scores.live import Inner, live_units
from passes.structure.role import Part


def bits(text: str) -> Tensor:
    return torch.tensor([c == "1" for c in text])


@pytest.mark.parametrize(
    ("matrices", "expected"),
    [
        ([Inner(Part.QUERY, bits("0000"), 2), Inner(Part.VALUE, bits("0100"), 2)], "10"),
        ([Inner(Part.VALUE, bits("1100"), 2), Inner(Part.OUTPUT, bits("0011"), 2)], "00"),
        ([Inner(Part.QKV, bits("000000001100"), 2), Inner(Part.OUTPUT, bits("1111"), 2)], "11"),  # of unknown layout
        ([Inner(Part.VALUE, bits("0101"), 2), Inner(Part.OUTPUT, bits("11110000"), 4)], "1100"),  # grouped
        ([Inner(Part.VALUE, bits("0001"), 2), Inner(Part.OUTPUT, bits("11110011"), 4)], "0001"),
        ([Inner(Part.UP, bits("1101")), Inner(Part.GATE, bits("1011")), Inner(Part.DOWN, bits("1111"))], "1001"),
        ([Inner(Part.GATE_UP, bits("110101"), tiles=2), Inner(Part.DOWN, bits("111"))], "100"),
        ([Inner(Part.QUERY, bits("11"), 2), Inner(Part.KEY, bits("11"), 2)], None),
        ([Inner(Part.VALUE, bits("11"))], None),
    ],
)
def test_what_lives(matrices: list[Inner], expected: str | None) -> None:
    alive = live_units(matrices)
    assert (None if alive is None else alive.tolist()) == (None if expected is None else bits(expected).tolist())
