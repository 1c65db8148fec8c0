"""Sizes keep what the trace found out: ranges, conditions, equalities."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from passes.frontend.trace import trace
from passes.verify.inputs import fresh_inputs
from passes.verify.record import record_reference


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def shapes(function: Any, *example: torch.Tensor) -> list[tuple[torch.Size, ...]]:
    return [tuple(t.shape for t in args) for _, args, _ in fresh_inputs(trace(Function(function), example))]


def test_ranges_are_kept() -> None:
    table = torch.randn(6, 4)
    found = shapes(lambda x: x + table[: x.shape[1]], torch.randn(2, 6, 4))
    assert {s[0][1] for s in found} == {6, 5, 4}  # no longer than the table, shorter all the same
    assert 1 in {s[0][0] for s in found}


def test_divisibility_is_kept() -> None:
    found = shapes(lambda x: x.view(x.shape[0], x.shape[1] // 4, 4, 3).sum(1), torch.randn(2, 8, 3))
    assert {s[0][1] % 4 for s in found} == {0}
    assert any(s[0][1] > 8 for s in found)


def test_equal_sizes_stay_equal_and_what_must_differ_differs() -> None:
    found = shapes(lambda x, y: (x + y).sum(1), torch.randn(2, 5, 4), torch.randn(2, 5, 4))
    assert all(a == b for a, b in found)
    assert any(s[0][0] == 1 for s in found)


def test_a_batch_that_equals_the_length_is_changed_alone_where_the_model_takes_that() -> None:
    graph = trace(Function(lambda x: x.cumsum(1) @ torch.eye(4)), torch.randn(3, 3, 4))
    tried = {trial.description for trial in record_reference(graph).trials}
    assert {"example", "1x6x4", "4x2x4"} <= tried
    square = trace(Function(lambda x, m: m @ x @ torch.eye(4)), (torch.randn(3, 3, 4), torch.randn(3, 3)))
    assert record_reference(square).skipped == ()
