"""The whole of `shrink`: the order of its passes, what it verifies, and the precision it measures by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
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
