"""Masks that do not fit: the refusal names the parameter and what was meant."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import fx

from passes.ir.info import META_KEY, TraceInfo
from passes.masks.check import MaskError, check_masks, hint, parameter_shapes
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten
ONES = torch.ones(2, 3, dtype=torch.bool)


@pytest.fixture
def graph() -> fx.GraphModule:
    sketch = Sketch()
    module = sketch.done(sketch.call(aten.linear.default, sketch.input("b", 3), sketch.weight("head.w", matrix(2, 3))))
    info = TraceInfo((), {}, None)
    module.meta[META_KEY] = replace(info, aliases={"head.w": "head.w", "tied.w": "head.w"})
    return module


def test_tied_names_have_the_shape_and_one_mask(graph: fx.GraphModule) -> None:
    assert parameter_shapes(graph) == {"head.w": (2, 3), "tied.w": (2, 3)}
    assert list(check_masks(graph, {"tied.w": ONES, "head.w": ONES})) == ["head.w"]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"w": ONES}, "no parameter of that name; did you mean 'head.w'"),
        ({"head.w": ONES.float()}, "is torch.float32; pass a bool tensor"),
        ({"head.w": [True]}, "is list; pass a bool tensor"),
        ({"head.w": ONES.t()}, r"has shape \(3, 2\); the parameter has \(2, 3\)"),
        ({"head.w": ONES, "tied.w": ~ONES}, "disagrees with that of 'head.w'"),
        ({"head.w": ONES}, "is tied to 'tied.w', which the mask would cut too"),
    ],
)
def test_refusals(graph: fx.GraphModule, masks: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        check_masks(graph, masks)


def test_hints() -> None:
    assert hint("model.head.w", {"head.w": 1}) == "; did you mean 'head.w'?"
    assert hint("heed.w", {"head.w": 1, "x": 1}) == "; did you mean 'head.w'?"
    assert hint("zzz", {"b": 1, "a": 1}) == " (it has a, b, …)"
