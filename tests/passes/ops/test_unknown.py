"""The default: nothing constant, everything read, every dim of inputs and result stays, for the reason given."""

from __future__ import annotations

import torch

from passes.ops.unknown import UNKNOWN
from tests.passes.sketch import Sketch, reason

aten = torch.ops.aten


def test_nothing_is_known_of_an_operator_without_a_rule() -> None:
    sketch = Sketch()
    x = sketch.free(3, 4)
    out = sketch.call(aten.tril.default, sketch.call(aten.mul.Tensor, x, 0.0))
    source = out.args[0]
    assert isinstance(source, torch.fx.Node)
    fact = UNKNOWN.constant(out, None)  # type: ignore[arg-type]
    assert not bool(fact.const.any())
    assert fact.value.dtype is torch.float64
    live = UNKNOWN.live(out, torch.zeros(3, 4, dtype=torch.bool), None)  # type: ignore[arg-type]
    assert bool(live[source].all())
    coupling = sketch.coupling({})
    for value in (out, source):
        for dim in (0, 1):
            assert reason(coupling, value, dim) == "used by an operator without a transfer rule"
