"""Every axis in use keeps one index; a dead piece of a concatenation may go."""

from __future__ import annotations

import torch

from passes.analysis.keep import keep_something
from tests.passes.sketch import Sketch, keeps

aten = torch.ops.aten
T, F = True, False


def test_heads_choose_before_the_flat_axis_and_dead_pieces_go() -> None:
    sketch = Sketch()
    x, piece, other = (sketch.free("b", 4, name=n) for n in ("x", "piece", "other"))
    heads = sketch.call(aten.reshape.default, x, [-1, 2, 2])
    joined = sketch.call(aten.cat.default, [piece, other], 1)
    coupling = sketch.coupling({joined: [F] * 7 + [T]})
    keep_something(coupling, sketch.graph)
    assert keeps(coupling, heads, 1) == keeps(coupling, heads, 2) == [T, F]
    assert keeps(coupling, x, 1) == [T, F, F, F]
    assert coupling.class_of[coupling.ties.grids[0].flat] not in coupling.filled
    assert keeps(coupling, other, 1) == [F, F, F, T]
