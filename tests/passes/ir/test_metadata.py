"""Metadata computed again: true shapes after a rewrite, the inputs' own symbols, complaints about sizes."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import passes
from passes.ir.graph import copy_graph, set_attribute
from passes.ir.metadata import fake_mode, propagate_metadata
from passes.ir.sizes import shape_of
from passes.rewrite.apply_masks import ApplyMasks
from passes.rewrite.fold_constants import FoldConstants
from passes.rewrite.shrink_dims import ShrinkDims
from tests.passes.properties.tiny import Shape, build, inputs, random_masks
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def test_shapes_follow_a_rewritten_weight_and_wrong_ones_raise() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    out = sketch.call(aten.linear.default, x, sketch.weight("w", matrix(4, 3)))
    module, batch = sketch.done(out), shape_of(x)[0]
    set_attribute(module, "w", nn.Parameter(matrix(2, 3)))
    propagate_metadata(module)
    assert shape_of(out)[1] == 2
    assert shape_of(out)[0].node.expr == batch.node.expr
    set_attribute(module, "w", nn.Parameter(matrix(2, 5)))
    with pytest.raises(RuntimeError):
        propagate_metadata(module)


def test_a_graph_without_metadata_is_refused() -> None:
    with pytest.raises(ValueError, match="carries no fake tensors"):
        fake_mode(fx.Graph())


def test_a_symbol_that_was_bound_to_a_number_does_not_come_back() -> None:
    """The input's width is a symbol that the linear fixes; a concatenation as wide as that may shrink."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(torch.cat([x, x.new_zeros(*x.shape[:2], 2)], -1))

    small = passes.shrink(passes.trace(Padded(), torch.randn(3, 5, 6)))
    assert small.plan.small_shape("down.weight", (3, 8)) == (3, 6)


def test_sizes_read_from_the_data_keep_their_symbols() -> None:
    """What the trace knows of them (their sum is no negative size) it knows of its own symbols only."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            first, second = counts.tolist()
            a, b = x.split([first, second])
            hidden = torch.cat([self.up(a).relu(), self.up(b).tanh()])
            chosen = torch.nonzero(a.sum() + x.sum(-1) > 0).squeeze(-1)
            return self.down(hidden + hidden.mean(0))[chosen]

    torch.manual_seed(0)
    model, mask = Experts().eval(), torch.ones(8, 6, dtype=torch.bool)
    mask[2:5] = False
    inputs = (torch.randn(5, 6), torch.tensor([2, 3]))
    bias = torch.ones(8, dtype=torch.bool)
    bias[2:5] = False
    result = passes.shrink(passes.trace(model, inputs), {"up.weight": mask, "up.bias": bias})
    assert result.plan.small_shape("down.weight", (6, 8)) == (6, 5)
    with torch.no_grad():
        model.up.weight.mul_(mask)
        model.up.bias.mul_(bias)
        for counts in ([2, 3], [4, 1]):
            want = model(inputs[0], torch.tensor(counts))
            got = result.graph_module(inputs[0], torch.tensor(counts))
            torch.testing.assert_close(got, want)


def test_a_size_that_channels_are_part_of_is_computed_anew_and_others_keep_their_symbols() -> None:
    sketch = Sketch()
    x = sketch.call(aten.mul.Tensor, sketch.input("b", "t", 1), sketch.weight("w", matrix(1, 6)[0]))
    heads = sketch.call(aten.reshape.default, x, [5, 7, -1, 2])
    turned = sketch.call(aten.transpose.int, heads, 1, 2)
    flat = sketch.call(aten.reshape.default, turned, [-1, 7, 2])
    module, (batch, length, _) = sketch.done(flat), shape_of(x)
    for node in (heads, flat):  # as the trace of a model that reads its sizes has them
        fake = node.meta["val"]
        sizes = (batch, length, 3, 2) if node is heads else (3 * batch, length, 2)
        with fake.fake_mode:
            node.meta["val"] = fake.new_empty(sizes)
    with heads.meta["val"].fake_mode:
        turned.meta["val"] = heads.meta["val"].transpose(1, 2)
    heads.args = (x, [sketch_size(sketch, x, 0), sketch_size(sketch, x, 1), -1, 2])
    flat.args = (turned, [-1, heads.args[1][1], 2])
    set_attribute(module, "w", nn.Parameter(matrix(1, 4)[0]))
    propagate_metadata(module)
    assert [str(s) for s in shape_of(turned)] == [str(s) for s in (batch, 2, length, 2)]
    assert [str(s) for s in turned.meta["val"].stride()] == [str(s) for s in (4 * length, 2, 4, 1)]
    assert [str(s) for s in shape_of(flat)] == [str(s) for s in (2 * batch, length, 2)]


def sketch_size(sketch: Sketch, x: fx.Node, dim: int) -> fx.Node:
    """The node that reads a size, right behind the value."""
    with sketch.graph.inserting_after(x):
        node = sketch.graph.call_function(aten.sym_size.int, (x, dim))
    node.meta["val"] = x.meta["val"].shape[dim]
    return node


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_shapes_at_the_examples_sizes_are_those_that_symbols_give(
    attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick way against the slow one, on a shrunken transformer with grouped heads."""
    shape = Shape(layers=1, heads=4, kv_heads=2, head_dim=4, ffn=8, gated=True, attention=attention)
    masks = random_masks(build(shape), {"qkv": "rows", "up": "rows", "out": "blocks"}, 3, 0.5, biases=True)
    masked = ApplyMasks(masks).run(passes.trace(build(shape), inputs())).graph_module
    small = ShrinkDims().run(FoldConstants().run(masked).graph_module)
    assert small.modified
    quick, slow = copy_graph(small.graph_module), copy_graph(small.graph_module)
    propagate_metadata(quick)
    monkeypatch.setattr("passes.ir.metadata._Example.with_symbols", lambda self, node: None)
    propagate_metadata(slow)
    for a, b in zip(quick.graph.nodes, slow.graph.nodes, strict=True):
        assert described(a.meta.get("val")) == described(b.meta.get("val")), a.name


def described(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), [str(s) for s in value.shape], [str(s) for s in value.stride()]
    return [described(v) for v in value] if isinstance(value, list | tuple) else str(value)
