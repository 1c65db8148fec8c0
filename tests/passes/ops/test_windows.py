"""Tensor.unfold: the unfolded dim stays whole, the others shrink, along channels and along data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from tests.passes.sketch import Sketch, reason

aten = torch.ops.aten


class Windows(nn.Module):
    """(batch, time, 4) -> heads (batch, time, 3, 6), unfolded along ``dim`` by windows of ``size``."""

    def __init__(self, dim: int, size: int, step: int) -> None:
        super().__init__()
        self.dim, self.size, self.step = dim, size, step
        self.up, self.down = nn.Linear(4, 18), nn.LazyLinear(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.up(x).unflatten(-1, (3, 6))
        return self.down(heads.unfold(self.dim, self.size, self.step).flatten(2))


def built(dim: int, size: int, step: int) -> Windows:
    torch.manual_seed(0)
    module = Windows(dim, size, step)
    module(torch.randn(3, 5, 4))
    return module.double()


def kill(module: Windows, rows: list[int]) -> None:
    with torch.no_grad():
        module.up.weight[rows] = 0
        module.up.bias[rows] = 0


@pytest.mark.parametrize(
    ("dim", "dead", "after"),
    [
        (-1, range(6, 12), (12, 4)),  # the second head, all of it: the heads are another dim than the windows'
        (-1, range(5, 18, 6), (18, 4)),  # one dim of every head: it lies along the windows
        (1, range(5, 18, 6), (15, 4)),  # the same, with windows along data
        (2, range(5, 18, 6), (15, 4)),  # the same, with windows along heads
    ],
)
def test_what_is_dead_goes_but_along_the_windows(dim: int, dead: range, after: tuple[int, int]) -> None:
    module = built(dim, 2, 2 if dim == -1 else 1)
    kill(module, list(dead))
    result = passes.shrink(passes.trace(module, torch.randn(2, 5, 4).double()))
    assert result.plan.small_shape("up.weight", (18, 4)) == after
    for shape in ((4, 7, 4), (1, 3, 4)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(result.graph_module(x), module(x), rtol=0, atol=1e-12)


def test_a_whole_dim_is_kept_for_the_windows_sake_and_the_report_says_so() -> None:
    module = built(-1, 2, 2)
    kill(module, list(range(5, 18, 6)))
    report = passes.shrink(passes.trace(module, torch.randn(2, 5, 4).double())).report
    assert any("unfolded into windows" in reason for reason in report.pinned.values())
    assert not report.unknown_operators


def test_nothing_goes_along_the_windows_dims() -> None:
    sketch = Sketch()
    x = sketch.free("b", 8)
    node = sketch.call(aten.unfold.default, x, 1, 3, 1)
    coupling = sketch.coupling({node: torch.tensor([True, False, False]).expand(6, 3).clone()})
    assert reason(coupling, node, 1) == reason(coupling, node, 2) == reason(coupling, x, 1) == "unfolded into windows"


def test_entries_between_the_windows_are_dead_and_constants_move_with_them() -> None:
    module = built(-1, 2, 4)  # windows (0, 1) and (4, 5): dims 2 and 3 of every head are read by nobody
    kill(module, [4])
    graph = passes.trace(module, torch.randn(2, 5, 4).double())
    (node,) = (n for n in graph.graph.nodes if n.target is aten.unfold.default)
    constants = Constants(graph)
    zero = constants.fact(node).zero[0, 0]  # (3 heads, 2 windows, 2 places)
    assert zero.nonzero().tolist() == [[0, 1, 0]]
    live = Liveness(constants).of(node.all_input_nodes[0])[0, 0]
    assert live.any(0).tolist() == [True, True, False, False, True, True]
