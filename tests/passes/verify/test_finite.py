"""A masked weight that meets an infinity is refused; an infinity that only living weights meet is not."""

from __future__ import annotations

import pytest
import torch

from passes.verify.errors import NotFiniteError
from passes.verify.finite import check_linear_input
from passes.verify.run import Run
from tests.passes.sketch import Sketch

aten = torch.ops.aten


@pytest.mark.parametrize("masked", [False, True])
def test_only_masked_weights_mind(masked: bool) -> None:
    sketch = Sketch()
    weight = sketch.weight("w", [[1.0, 0.0 if masked else 1.0], [1.0, 1.0]])
    out = sketch.call(aten.linear.default, sketch.input("b", 2), weight)
    run = Run(sketch.done(out), [torch.tensor([[1.0, float("inf")]], dtype=torch.float64)])
    for node in list(run.module.graph.nodes)[:2]:
        run.step(node)
    if masked:
        with pytest.raises(NotFiniteError, match=r"x is not finite on the example inputs in channels \[1\], and w has"):
            check_linear_input(out, run)
    else:
        check_linear_input(out, run)
