"""Standard deviations reduce as variances do: the reduced dim stays whole, the others shrink."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes.ops.reductions import CUMULATIVE, REDUCTION, SOFTMAX, operator_name, reduced_dims
from passes.ops.rule import Kind, Rule
from passes.ops.table import kind_of
from tests.passes.sketch import NAN, Sketch, keeps, reason, tied


class Spread(nn.Module):
    """(batch, time, 4) -> (batch, time, 3, 6) -> its spread over ``dim``."""

    def __init__(self, dim: int, width: int, keepdim: bool, **how: float) -> None:
        super().__init__()
        self.dim, self.keepdim, self.how = dim, keepdim, how
        self.up, self.down = nn.Linear(4, 18), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.up(x).unflatten(-1, (3, 6))
        return self.down(torch.std(heads, self.dim, keepdim=self.keepdim, **self.how))


@pytest.mark.parametrize("how", [{}, {"unbiased": False}, {"correction": 0}])
@pytest.mark.parametrize(
    ("dim", "width", "keepdim", "dead", "left"),
    [
        (-1, 3, False, [1], 12),  # nobody reads the spread of the second head
        (2, 6, False, [5], 15),  # nor that of the last dim over the heads
        (1, 6, True, [0, 5], 12),  # nor those of two dims over time
    ],
)
def test_spreads_that_nobody_reads_go(
    dim: int, width: int, keepdim: bool, dead: list[int], left: int, how: dict[str, float]
) -> None:
    torch.manual_seed(0)
    module = Spread(dim, width, keepdim, **how).double()
    with torch.no_grad():
        module.down.weight[:, dead] = 0
    result = passes.shrink(passes.trace(module, torch.randn(2, 5, 4).double()))
    assert not result.report.unknown_operators
    assert result.plan.small_shape("up.weight", (18, 4)) == (left, 4)
    x = torch.randn(4, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(result.graph_module(x), module(x), rtol=0, atol=1e-12)


def test_a_zero_among_what_is_spread_stays_with_the_reason() -> None:
    torch.manual_seed(0)
    module = Spread(-1, 3, False).double()
    with torch.no_grad():
        module.up.weight[5::6] = 0
        module.up.bias[5::6] = 0
    result = passes.shrink(passes.trace(module, torch.randn(2, 5, 4).double()))
    assert result.plan.small_shape("up.weight", (18, 4)) == (18, 4)
    assert "reduced by std: over fewer channels" in str(result.report)


def test_roles_are_told_that_it_is_a_reduction() -> None:
    graph = passes.trace(Spread(-1, 3, False), torch.randn(2, 5, 4)).graph
    (node,) = (n for n in graph.nodes if n.target is torch.ops.aten.std.dim)
    assert kind_of(node) is Kind.REDUCTION


aten = torch.ops.aten
T, F = True, False


def test_averages_of_constants_are_constant_and_sums_over_data_are_not() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", "t", 2, 3), [[1.0, 2.0, 3.0], [1.0, 2.0, NAN]])
    mean, largest = sketch.call(aten.mean.dim, x, [-1]), sketch.call(aten.amax.default, x, [1, 3], True)
    total = sketch.call(aten.sum.dim_IntList, x, [1])
    constants = sketch.constants(mean, largest, total)
    assert constants.fact(mean).const[0, 0].tolist() == [T, F]
    assert constants.fact(mean).value[0, 0].tolist() == [2.0, 0.0]
    assert constants.fact(largest).const.flatten().tolist() == [T, F]
    assert constants.fact(largest).value.flatten().tolist() == [3.0, 0.0]
    assert not bool(constants.fact(total).const.any())


@pytest.mark.parametrize("keepdim", [False, True])
def test_reduced_dims_are_read_whole_and_stay_and_the_others_move_up(keepdim: bool) -> None:
    sketch = Sketch()
    x = sketch.free("b", 3, 2, 4)
    out = sketch.call(aten.mean.dim, x, [1], keepdim)
    last = len(out.meta["val"].shape) - 1
    assert reduced_dims(out) == [1]
    live_out = torch.tensor([[F, F, F, F], [F, T, F, F]])
    live_out = live_out[None, None] if keepdim else live_out[None]
    live = REDUCTION.live(out, live_out, None)  # type: ignore[arg-type]
    assert live[x][0].tolist() == [[[F, F, F, F], [F, T, F, F]]] * 3
    coupling = sketch.coupling({out: live_out})
    assert reason(coupling, x, 1) == "reduced by mean: over fewer channels it is another number"
    assert keeps(coupling, x, 3) == keeps(coupling, out, last) == [F, T, F, F]
    assert keeps(coupling, x, 2) == [F, T]


def test_without_dims_all_are_reduced() -> None:
    sketch = Sketch()
    node = sketch.call(aten.sum.default, sketch.input("b", 3, 2))
    assert list(reduced_dims(node)) == [0, 1, 2]
    assert operator_name(node) == "sum"


@pytest.mark.parametrize(("target", "rule"), [(aten.softmax.int, SOFTMAX), (aten.cumsum.default, CUMULATIVE)])
def test_mixed_dims_are_read_whole_and_the_others_apart(target: torch._ops.OpOverload, rule: Rule) -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 3)
    out = sketch.call(target, x, -1)
    live = rule.live(out, torch.tensor([[[F, F, F], [F, T, F]]]), None)  # type: ignore[arg-type]
    assert live[x].tolist() == [[[F, F, F], [T, T, T]]]
    coupling = sketch.coupling({})
    assert reason(coupling, x, 2) == reason(coupling, out, 2) == f"mixed by {rule.name}"
    assert tied(coupling, (x, 1), (out, 1))
    assert reason(coupling, x, 1) is None


def test_pools_mix_positions_and_leave_channels_apart() -> None:
    sketch = Sketch()
    x, image = sketch.free("b", 3, 6), sketch.free("b", 3, 4, 6, name="image")
    line, square = sketch.call(aten.avg_pool1d.default, x, [2]), sketch.call(aten.avg_pool2d.default, image, [2, 2])
    coupling = sketch.coupling({line: [[F, F, F], [F, T, F], [F, F, F]]})
    assert keeps(coupling, x, 1) == [F, T, F]
    assert tied(coupling, (image, 1), (square, 1))
    for value, dim in ((x, 2), (line, 2), (image, 2), (image, 3), (square, 2), (square, 3)):
        assert reason(coupling, value, dim) == "mixed by pooling"
