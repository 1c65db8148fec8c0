"""Rows of a table that only other lengths read stay, in the module and in the plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import passes
from passes.analysis.analysis import analyse

Forward = Callable[["Table", torch.Tensor], torch.Tensor]


class Table(nn.Module):
    """Eight positions of six features; ``p`` and ``q`` are what the forms below read in part."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.p, self.q = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(8, 8))
        self.norm, self.out = nn.LayerNorm(6), nn.Linear(6, 4)
        self.form = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.form(self, x))


FORMS: dict[str, Forward] = {
    "sliced": lambda m, x: x + m.p[: x.shape[1]],
    "from its end": lambda m, x: x + m.p[8 - x.shape[1] :],
    "scaled before": lambda m, x: x + (m.p * 0.5)[: x.shape[1]],
    "normalised before": lambda m, x: x + m.norm(m.p)[: x.shape[1]],
    "projected before": lambda m, x: x + functional.linear(m.p, m.q[:6, :6])[: x.shape[1]],
    "in two dims": lambda m, x: m.q[: x.shape[1], : x.shape[1]] @ x,
    "as a weight": lambda m, x: functional.linear(x.mT, m.q[: x.shape[1], : x.shape[1]]).mT,
    "row by row": lambda m, x: torch.stack([x[:, i] + m.p[i] for i in range(x.shape[1])], 1),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_the_module_is_right_at_lengths_that_the_trace_fixed(form: str, length: int) -> None:
    model = Table(FORMS[form]).eval()
    result = passes.shrink(passes.trace(model, torch.randn(2, length, 6), dynamic=False))
    small = result.plan.apply_to(model)
    for other in (1, 2, 5, 8):
        x = torch.randn(2, other, 6)
        torch.testing.assert_close(small(x), model(x))


def test_what_a_mask_hides_there_stays_for_that_reason() -> None:
    model, mask = Table(FORMS["sliced"]).eval(), torch.ones(8, 6, dtype=torch.bool)
    mask[5:] = False
    report = passes.shrink(passes.trace(model, torch.randn(2, 3, 6), dynamic=False), {"p": mask}).report
    assert report.pinned["p[0] (3 of 8)"].startswith("not read at the example's sizes")


class Fused(nn.Module):
    """Queries, keys and values from one matrix, each by its piece: all of it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 4))
        self.out = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = (functional.linear(x, piece) for piece in self.weight.chunk(3))
        return self.out(a.sigmoid() * b.tanh() * c)


def test_pieces_that_make_up_the_whole_hold_nothing_back() -> None:
    torch.manual_seed(0)
    mask = torch.ones(12, 4, dtype=torch.bool)
    mask[[1, 5, 9]] = False
    result = passes.shrink(passes.trace(Fused(), torch.randn(2, 4)), {"weight": mask})
    assert result.plan.small_shape("weight", (12, 4)) == (9, 4)


def test_a_table_that_is_looked_up_counts_as_read_whole_and_stays() -> None:
    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(5, 3))
            self.register_buffer("rows", torch.tensor([0, 3]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.table.index_select(0, self.rows)

    analysis = analyse(passes.trace(Picked(), torch.randn(4, 2, 3)))
    assert not analysis.coupling.unread
    assert not analysis.cuts()
