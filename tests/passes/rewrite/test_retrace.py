"""A retraced graph says the true shapes; the one that came in is left alone."""

from __future__ import annotations

import torch
from torch import nn

from passes.ir.graph import set_attribute
from passes.ir.sizes import shape_of
from passes.rewrite.retrace import Retrace
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def test_shapes_are_true_again() -> None:
    sketch = Sketch()
    out = sketch.call(aten.linear.default, sketch.input("b", 3), sketch.weight("w", matrix(4, 3)))
    module = sketch.done(out)
    set_attribute(module, "w", nn.Parameter(matrix(2, 3)))
    result = Retrace().run(module)
    (product,) = [n for n in result.graph_module.graph.nodes if n.target is aten.linear.default]
    assert (shape_of(product)[1], shape_of(out)[1], result.modified) == (2, 4, False)
