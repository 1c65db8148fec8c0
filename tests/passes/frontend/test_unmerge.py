"""Heads apart from the batch: the same numbers, heads as a dim of their own; what other operators read stays."""

from __future__ import annotations

import torch

from passes.frontend.unmerge import unmerge
from passes.ir.sizes import is_static, shape_of
from tests.passes.sketch import Sketch

aten = torch.ops.aten


def test_attention_in_merged_form_is_split_and_computes_the_same() -> None:
    sketch = Sketch()
    q, k = sketch.input("b", 3, "t", 4, name="q"), sketch.input("b", 3, "t", 4, name="k")
    size = [sketch.call(aten.sym_size.int, q, d) for d in (0, 2)]
    merged = [sketch.call(aten.reshape.default, x, [-1, size[1], 4]) for x in (q, k)]
    bias = sketch.input(1, 1, "t", name="bias")
    scores = sketch.call(
        aten.baddbmm.default, bias, merged[0], sketch.call(aten.transpose.int, merged[1], 1, 2), alpha=0.5
    )
    probs = sketch.call(aten.softmax.int, scores, -1)
    mixed = sketch.call(aten.bmm.default, probs, merged[1])
    out = sketch.call(aten.reshape.default, mixed, [size[0], 3, size[1], 4])
    module = sketch.done(out)
    numbers = [torch.randn(2, 3, 7, 4).double(), torch.randn(2, 3, 7, 4).double(), torch.randn(1, 1, 7).double()]
    before = module(*numbers)[0]
    unmerge(module.graph)
    module.graph.lint()
    module.recompile()
    torch.testing.assert_close(module(*numbers)[0], before, rtol=0, atol=1e-12)
    targets = {n.target for n in module.graph.nodes}
    assert targets.isdisjoint({aten.bmm.default, aten.baddbmm.default})
    (softmax,) = [n for n in module.graph.nodes if n.target is aten.softmax.int]
    assert [is_static(s) for s in shape_of(softmax)] == [False, True, False, False]


def test_a_merged_value_that_another_operator_reads_stays() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3, "t")
    merged = sketch.call(aten.reshape.default, x, [-1, sketch.call(aten.sym_size.int, x, 2)])
    module = sketch.done(sketch.call(aten.cumsum.default, merged, 1))
    numbers = torch.randn(2, 3, 7).double()
    before = module(numbers)[0]
    unmerge(module.graph)
    module.recompile()
    assert merged in module.graph.nodes
    assert torch.equal(module(numbers)[0], before)
