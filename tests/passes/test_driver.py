"""The whole of `shrink`: the order of its passes, what it verifies, and the precision it measures by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes import driver
from passes.driver import least_precise, shrink_passes
from passes.options import ShrinkOptions
from tests.passes.sketch import Sketch

aten = torch.ops.aten


def test_numbers_come_before_constants_and_constants_before_shapes() -> None:
    names = [p.name for p in shrink_passes({}, ShrinkOptions())]
    assert names == ["apply-masks", "fold-constants", "shrink-dims", "retrace", "replace-constants", "drop-noop-slices"]


def test_the_least_precise_value_counts_and_integers_do_not() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    sketch.call(aten.to.dtype, x, torch.int8)
    assert least_precise(sketch.module) is torch.float64
    sketch.call(aten.to.dtype, x, torch.float32)
    assert least_precise(sketch.module) is torch.float32


def test_verification_is_asked_for_and_bad_options_are_refused_before_any_work() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    graph = passes.trace(model, torch.randn(2, 3).double())
    masks = {"0.weight": (torch.arange(4) > 0)[:, None].expand(4, 3)}
    unverified = passes.shrink(graph, masks, verify=False)
    assert unverified.report.agreement is None
    assert unverified.plan.small_shape("2.weight", (2, 4)) == (2, 3)
    assert model[0].weight.shape == (4, 3)
    with pytest.raises(ValueError, match="multiple=0"):
        passes.shrink(graph, masks, multiple=0)


def test_models_on_the_meta_device_are_sent_to_the_plan() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = passes.trace(model, torch.empty(2, 3, device="meta"))
    with pytest.raises(passes.MaskError, match=r"0\.weight.*meta.*plan_shrink"):
        passes.shrink(graph)


@pytest.mark.parametrize(("width", "out"), [(0, 3), (6, 0)])
def test_layers_without_entries_pass_through(width: int, out: int) -> None:
    model = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, out)).double().eval()
    small = passes.shrink(passes.trace(model, torch.randn(2, 5, 4).double())).graph_module
    x = torch.randn(3, 2, 4).double()
    assert torch.equal(small(x), model(x))


class Chained(nn.Module):
    """What one round removes, the next one needs gone: a dead sublayer in a chain of fused weights.

    ``down`` is dead, but sort, which has two results, reads all of ``read`` as long as it runs. With it gone, the first
    round cuts ``summed``; all that is left of ``half`` is constant, and it is replaced; then the second round cuts its
    rows of ``fused``.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fused, self.other, self.down, self.out = nn.Linear(4, 8), nn.Linear(4, 4), nn.Linear(2, 4), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half, gate = self.fused(x).chunk(2, -1)
        read, summed = (half + self.other(x)).relu().chunk(2, -1)
        return self.out(torch.cat([gate.relu(), summed], -1)) + self.down(read + read.sort(-1).values)


def chained() -> tuple[nn.Module, torch.fx.GraphModule]:
    model = Chained().double()
    with torch.no_grad():
        model.down.weight.zero_()
        model.fused.weight[2:4] = 0  # what `summed` reads of half is constant
    return model, passes.trace(model, torch.randn(2, 3, 4).double())


def rounds(result: passes.ShrinkResult) -> int:
    return sum(record["name"] == "shrink-dims" for record in result.certificate.passes) - 1  # but for the first pass


def test_rounds_go_on_until_nothing_is_left() -> None:
    _, graph = chained()
    result = passes.shrink(graph)
    assert rounds(result) == 3  # two that remove something
    assert result.graph_module.get_parameter("fused.weight").shape == (4, 4)
    assert result.graph_module.get_parameter("other.weight").shape == (2, 4)
    again = passes.shrink(result.graph_module)
    assert (again.plan.cuts, again.plan.folds, again.plan.constants) == ((), (), ())


def test_rounds_end_at_their_bound_with_an_exact_graph_that_could_be_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_MOST_ROUNDS", 1)
    model, graph = chained()
    result = passes.shrink(graph)
    assert rounds(result) == 1
    assert result.graph_module.get_parameter("fused.weight").shape == (6, 4)
    x = torch.randn(3, 5, 4).double()
    torch.testing.assert_close(result.graph_module(x), model(x), rtol=0, atol=1e-12)
