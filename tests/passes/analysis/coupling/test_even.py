"""One head size per attention: the smaller of two that share their heads is padded with dead dims."""

from __future__ import annotations

import torch

from passes.analysis.coupling.even import even_heads
from tests.passes.sketch import Sketch, keeps

aten = torch.ops.aten
T, F = True, False


def test_values_keep_as_many_dims_as_queries_and_other_attentions_are_left_alone() -> None:
    sketch = Sketch()
    q, v, other = (sketch.free("b", 8, name=n) for n in ("q", "v", "other"))
    heads, values, apart = (sketch.call(aten.reshape.default, x, [-1, 2, 4]) for x in (q, v, other))
    sketch.call(aten.mul.Tensor, *(sketch.call(aten.select.int, x, 2, 0) for x in (heads, values)))  # the same heads
    coupling = sketch.coupling({heads: [T, T, F, T], values: [F, F, F, T], apart: [F, T, F, F]})
    even_heads(coupling)
    assert keeps(coupling, heads, 2) == [T, T, F, T]
    assert keeps(coupling, values, 2) == [T, T, F, T]
    assert keeps(coupling, apart, 2) == [F, T, F, F]
