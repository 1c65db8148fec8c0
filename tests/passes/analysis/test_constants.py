"""Facts of a whole graph: parameters with their masks, numbers that cannot be read, rules that stumble."""

from __future__ import annotations

import pytest
import torch

from passes.analysis.analysis import analyse
from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from passes.ops import pointwise
from tests.passes.sketch import NAN, Sketch, matrix

aten = torch.ops.aten


def test_numbers_that_cannot_be_read_are_dense_and_not_known() -> None:
    sketch = Sketch()
    out = sketch.call(aten.linear.default, sketch.input("b", 2), sketch.weight("w", matrix(2, 2)))
    mask = torch.tensor([[True, False], [True, True]])
    module = sketch.done(out)
    masked, bare = (Constants(module, masks, lambda name: None) for masks in ({"w": mask}, {}))
    assert torch.equal(masked.pattern("w"), mask)  # type: ignore[arg-type]
    assert masked.weight("w").isnan().tolist() == mask.tolist()  # type: ignore[union-attr]
    assert (bare.pattern("w"), bare.weight("w")) == (None, None)


def test_one_constant_over_all_positions_or_none() -> None:
    """Position 0 and 1 hold 3 and 4 in column 1."""
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2, 3), [[2.0, 3.0, NAN], [2.0, 4.0, 5.0]])
    constants = sketch.constants(sketch.call(aten.linear.default, x, sketch.weight("w", matrix(4, 3))))
    const, value = constants.folded_constants(constants.uses["w"][0])
    assert const.tolist() == [True, False, False]
    assert value[0].item() == 2.0


def test_infinite_constants_never_fold() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [1.0, NAN])
    out = sketch.call(aten.div.Tensor, x, sketch.weight("zero", [0.0, 1.0]))
    constants = sketch.constants(sketch.call(aten.linear.default, out, sketch.weight("w", matrix(2, 2))))
    assert constants.fact(out).value[0, 0].item() == float("inf")
    assert constants.folded_constants(constants.uses["w"][0])[0].tolist() == [False, False]


def test_a_rule_that_raises_gives_way_to_the_default_and_the_report_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*arguments: object) -> None:
        raise IndexError("not written for this")

    for part in ("constant", "live", "ties"):
        sketch = Sketch()
        x = sketch.fixed(sketch.input("b", 2), [1.0, NAN])
        relu = sketch.call(aten.relu.default, x)
        module = sketch.done(sketch.call(aten.mul.Tensor, relu, sketch.weight("keep", [1.0, 0.0])))
        rule = pointwise.POINTWISE
        with monkeypatch.context() as patch:
            patch.setitem(rule.__dict__, part, stumble)
            analysis = analyse(module)
            analysis.coupling  # noqa: B018
        assert analysis.conservative() == ("aten.relu.default (its rule failed: IndexError: not written for this)",)
        assert analysis.constants.fact(relu).const.any().item() is (part != "constant")


def test_what_sizes_say_is_no_input_number() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2)
    size = sketch.call(aten.sym_size.int, x, 0)
    made, used = sketch.call(aten.full.default, [3, 2], 1.0), sketch.call(aten.relu.default, x)
    liveness = Liveness(sketch.constants(made, used))
    assert {x, used} <= liveness.constants.from_inputs
    assert liveness.constants.from_inputs.isdisjoint({made, size})
