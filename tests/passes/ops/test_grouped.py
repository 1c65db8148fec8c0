"""Grouped products: what all groups ignore goes from all of them, in the counts that kernels take."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import passes
from passes.ops.grouped import RULE
from passes.ops.table import rule_for
from passes.ops.unknown import UNKNOWN
from tests.passes.sketch import Sketch, reader

FALLBACK = torch.ops.transformers.grouped_mm_fallback.default
T, F = True, False
WEIGHTS = [[[1.0, 0.0, 0.0], [1.0, 0.0, 2.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]]]  # two groups of (2, 3)


def product(sketch: Sketch, x: fx.Node) -> fx.Node:
    ends = sketch.input(2, dtype=torch.int32, name="ends")
    return sketch.call(FALLBACK, x, sketch.weight("w", WEIGHTS), ends)


def test_a_column_that_no_group_fills_is_0_and_no_other_number_is_followed() -> None:
    sketch = Sketch()
    out = product(sketch, sketch.fixed(sketch.input("b", 2), [5.0, 0.0]))
    fact = sketch.constants(out).fact(out)
    assert fact.const.tolist() == [[F, T, T]]  # the third column reads the second row alone, which meets 0
    assert fact.value.tolist() == [[0.0, 0.0, 0.0]]


def test_what_any_group_reads_is_read() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2)
    out = product(sketch, x)
    liveness = sketch.liveness(reader(sketch, out, [1.0, 1.0, 0.0]))
    weights = next(node for node in sketch.graph.nodes if node.target == "w")
    assert liveness.of(x).tolist() == [[T, T]]
    assert liveness.of(weights).tolist() == [[[T, F, F], [T, F, F]], [[F, F, F], [T, F, F]]]


def test_torchs_own_has_the_rule_where_rows_come_in_groups() -> None:
    sketch = Sketch()
    own = torch.ops.aten._grouped_mm.default
    x, w = (sketch.input(*shape, dtype=torch.bfloat16, name="x") for shape in (("b", 16), (3, 16, 8)))
    ends = sketch.input(3, dtype=torch.int32, name="ends")
    assert rule_for(sketch.call(own, x, w, ends)) is RULE
    batched = sketch.input(3, "b", 16, dtype=torch.bfloat16, name="batched")
    assert rule_for(sketch.call(own, batched, w)) is UNKNOWN


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 32)), nn.Parameter(torch.randn(3, 32, 8))

    def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        hidden = FALLBACK(x, self.up, ends)
        return FALLBACK(hidden.relu(), self.down, ends)


@pytest.mark.parametrize(("dead", "kept"), [(5, 32), (8, 24), (17, 16), (31, 8)])
def test_counts_stay_multiples_of_8(dead: int, kept: int) -> None:
    torch.manual_seed(0)
    model, ends = Experts().double(), torch.tensor([2, 2, 5], dtype=torch.int32)
    mask = (torch.arange(32) >= dead)[:, None].expand(3, 32, 8)
    result = passes.shrink(passes.trace(model, (torch.randn(6, 8).double(), ends)), {"down": mask})
    small = dict(result.graph_module.named_parameters())
    assert (small["up"].shape, small["down"].shape) == ((3, 8, kept), (3, kept, 8))
    reasons = " ".join(result.report.pinned.values())
    assert ("rounded up to a multiple of 8: an operator takes no others" in reasons) == (32 - dead != kept)
