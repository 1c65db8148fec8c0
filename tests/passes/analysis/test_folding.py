"""Which constants fold, and the reason why others do not."""

from __future__ import annotations

from typing import Any

import torch

from tests.passes.sketch import NAN, Sketch, matrix

aten = torch.ops.aten
LINEAR = aten.linear.default


def foldable(
    *uses: tuple[list[float], str | None], target: Any = LINEAR, embedded: bool = False
) -> tuple[Any, str | None]:
    """Columns that fold into the bias of a weight with these uses: (constants of the input, bias)."""
    sketch = Sketch()
    weight, outputs = sketch.weight("w", matrix(2, 2)), []
    biases = {name: sketch.weight(name, [0.0, 0.0]) for _, name in uses if name is not None}
    for i, (numbers, bias) in enumerate(uses):
        x = sketch.fixed(sketch.input("b", 2, name=f"x{i}"), numbers, f"fixed{i}")
        arguments = (x, weight) if bias is None else (x, weight, biases[bias])
        outputs.append(sketch.call(LINEAR if i == 0 else target, *arguments))
    if embedded:
        outputs.append(sketch.call(aten.embedding.default, weight, sketch.input("b", dtype=torch.int64, name="ids")))
    constants = sketch.constants(*outputs)
    found = constants.folding.of(constants.uses["w"][0])
    return found.columns.tolist(), found.reason


def test_constants_fold_where_every_use_has_the_same_one() -> None:
    assert foldable(([3.0, NAN], None)) == ([True, False], None)
    assert foldable(([3.0, 1.0], None), ([3.0, 2.0], None)) == (
        [True, False],
        "it is another constant at another use of the weight",
    )


def test_refusals_have_their_reasons() -> None:
    nothing = [False, False]
    assert foldable(([3.0, 1.0], None), embedded=True) == (
        nothing,
        "something other than a linear product reads the weight",
    )
    assert foldable(([3.0, 1.0], "c"), ([3.0, 1.0], "d")) == (nothing, "the uses of the weight have different biases")
    assert foldable(([3.0, 1.0], None), ([3.0, 1.0], None), target=aten.mm.default) == (
        nothing,
        "the weight is used in two orientations",
    )


def test_a_window_of_a_weight_without_a_bias_folds_nothing() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [3.0, NAN])
    rows = sketch.call(aten.slice.Tensor, sketch.weight("w", matrix(4, 2)), 0, 0, 2)
    constants = sketch.constants(sketch.call(LINEAR, x, rows))
    found = constants.folding.of(constants.uses["w"][0])
    assert str(found.reason).startswith("the weight is used in pieces and has no bias")
    assert not bool(found.columns.any())
