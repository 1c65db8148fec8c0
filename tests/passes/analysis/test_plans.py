"""Facts as data: one fold per weight and the bias it goes to, cuts and cleared rows, how heads are viewed."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.coupling.solver import couple
from passes.analysis.liveness import Liveness
from passes.analysis.plans import find_fold, head_views, plan_cuts
from passes.plan.data import Cut, Fold, HeadView
from tests.passes.sketch import NAN, Sketch, matrix, reader

aten = torch.ops.aten
LINEAR = aten.linear.default


def fold(sketch: Sketch, *outputs: fx.Node, name: str = "w", **given: object) -> Fold | None:
    module = sketch.done(*outputs)
    constants = Constants(module, **given)  # type: ignore[arg-type]
    return find_fold(module, constants, constants.uses[name])


def cuts(sketch: Sketch, *outputs: fx.Node) -> dict[str, Cut]:
    constants = sketch.constants(*outputs)
    liveness = Liveness(constants)
    found = plan_cuts(constants.graph_module, couple(constants, liveness), constants, liveness)
    assert len({cut.parameter for cut in found}) == len(found)
    return {cut.parameter: cut for cut in found}


@pytest.mark.parametrize("target", [LINEAR, aten.mm.default])
def test_constant_columns_that_the_weight_reads_fold(target: object) -> None:
    """Column 0 is constant 3, column 1 constant 4 but not read, column 2 computed."""
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 3), [3.0, 4.0, NAN])
    weight = matrix(2, 3)
    weight[:, 1] = 0
    in_dim = 1 if target is LINEAR else 0
    w = sketch.weight("w", weight if target is LINEAR else weight.t().contiguous())
    found = fold(sketch, sketch.call(target, x, w))
    assert found == Fold("w", "w_folded_bias", True, in_dim=in_dim, columns=(0,), constants=(3.0,))


def test_nothing_to_fold_is_no_fold() -> None:
    for numbers, mask in (([NAN, NAN], [True, True]), ([3.0, NAN], [False, True])):
        sketch = Sketch()
        x = sketch.fixed(sketch.input("b", 2), numbers)
        out = sketch.call(LINEAR, x, sketch.weight("w", matrix(2, 2)))
        assert fold(sketch, out, masks={"w": torch.tensor(mask).expand(2, 2)}) is None


def test_a_weight_that_cannot_be_read_counts_as_dense() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [3.0, NAN])
    out = sketch.call(LINEAR, x, sketch.weight("w", torch.zeros(2, 2).double()))
    found = fold(sketch, out, read=lambda name: None if name == "w" else sketch.module.get_parameter(name))
    assert found is not None
    assert found.columns == (0,)


@pytest.mark.parametrize(("weight", "bias"), [("up.weight", "up.bias"), ("table", "table_folded_bias")])
def test_a_layer_without_a_bias_gets_one_by_its_own_name(weight: str, bias: str) -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [3.0, NAN])
    found = fold(sketch, sketch.call(LINEAR, x, sketch.weight(weight, matrix(2, 2))), name=weight)
    assert found is not None
    assert (found.bias, found.new_bias) == (bias, True)


@pytest.mark.parametrize("shared", [False, True])
def test_a_bias_that_others_read_is_left_to_them(shared: bool) -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [3.0, NAN])
    bias = sketch.weight("b", [1.0, 2.0])
    outputs = [sketch.call(LINEAR, x, sketch.weight("w", matrix(2, 2)), bias)]
    if shared:
        outputs.append(sketch.call(aten.mul.Tensor, x, bias))
    found = fold(sketch, *outputs)
    assert found is not None
    assert (found.bias, found.new_bias) == ("w_folded_bias" if shared else "b", False)


def windows(sketch: Sketch, x: fx.Node) -> list[fx.Node]:
    """Two uses of the halves of one weight and its bias."""
    w, b = sketch.weight("w", matrix(4, 2)), sketch.weight("b", [1.0, 2.0, 3.0, 4.0])
    return [
        sketch.call(
            LINEAR, x, sketch.call(aten.slice.Tensor, w, 0, i, i + 2), sketch.call(aten.slice.Tensor, b, 0, i, i + 2)
        )
        for i in (0, 2)
    ]


def test_slices_that_the_uses_take_of_their_bias_are_theirs() -> None:
    sketch = Sketch()
    found = fold(sketch, *windows(sketch, sketch.fixed(sketch.input("b", 2), [3.0, NAN])))
    assert found is not None
    assert found.bias == "b"


def test_every_parameter_on_a_cut_axis_is_cut_and_no_other() -> None:
    sketch = Sketch()
    down = matrix(3, 4)
    down[:, [1, 3]] = 0
    up = sketch.call(LINEAR, sketch.input("b", 2), sketch.weight("up", matrix(4, 2)), sketch.weight("b", [1.0] * 4))
    out = sketch.call(LINEAR, sketch.call(aten.relu.default, up), sketch.weight("down", down))
    assert cuts(sketch, sketch.call(aten.add.Tensor, out, sketch.weight("shift", [1.0, 1.0, 1.0]))) == {
        "up": Cut("up", (4, 2), {0: (0, 2)}),
        "b": Cut("b", (4,), {0: (0, 2)}),
        "down": Cut("down", (3, 4), {1: (0, 2)}),
    }


@pytest.mark.parametrize("target", [LINEAR, aten.addmm.default])
def test_rows_that_nobody_reads_but_that_stay_are_cleared(target: object) -> None:
    """The output pins the axis; row 1 is not read, row 2 is the constant 5."""
    sketch = Sketch()
    x, bias = sketch.input("b", 2), sketch.weight("b", [1.0, 2.0, 5.0])
    weight = matrix(3, 2)
    weight[2] = 0
    if target is LINEAR:
        y = sketch.call(target, x, sketch.weight("w", weight), bias)
    else:
        y = sketch.call(target, bias, x, sketch.weight("w", weight.t().contiguous()))
    shape, out_dim = ((3, 2), 0) if target is LINEAR else ((2, 3), 1)
    assert cuts(sketch, reader(sketch, y, [1.0, 0.0, 0.0])) == {
        "w": Cut("w", shape, {}, (1,), out_dim),
        "b": Cut("b", (3,), {}, (1,), 0),
    }


def test_a_bias_that_others_read_is_not_cleared() -> None:
    sketch = Sketch()
    x, bias = sketch.input("b", 3), sketch.weight("b", [1.0, 2.0, 3.0])
    y = sketch.call(LINEAR, x, sketch.weight("w", matrix(3, 3)), bias)
    found = cuts(sketch, reader(sketch, y, [1.0, 0.0, 1.0]), sketch.call(aten.add.Tensor, x, bias))
    assert found == {"w": Cut("w", (3, 3), {}, (1,), 0)}


def test_weights_with_other_readers_or_two_orientations_are_not_cleared() -> None:
    for second in (aten.mm.default, aten.embedding.default):
        sketch = Sketch()
        x, w = sketch.input("b", 3), sketch.weight("w", matrix(3, 3))
        y = reader(sketch, sketch.call(LINEAR, x, w), [1.0, 0.0, 1.0])
        if second is aten.mm.default:
            other = reader(sketch, sketch.call(second, x, w), [1.0, 0.0, 1.0], "again")
        else:
            other = sketch.call(second, w, sketch.input("b", dtype=torch.int64, name="ids"))
        last = sketch.call(LINEAR, x, sketch.weight("last", matrix(2, 3)))
        assert cuts(sketch, y, other, reader(sketch, last, [1.0, 0.0], "last_keep")) == {
            "last": Cut("last", (2, 3), {}, (1,), 0)
        }


def test_rows_stay_whole_where_any_use_reads_them() -> None:
    """The first use reads row 0 of its half, the second one row 1 of the other half."""
    sketch = Sketch()
    first, second = windows(sketch, sketch.input("b", 2))
    found = cuts(sketch, reader(sketch, first, [1.0, 0.0]), reader(sketch, second, [0.0, 1.0], "again"))
    assert found == {"w": Cut("w", (4, 2), {}, (1, 2), 0), "b": Cut("b", (4,), {}, (1, 2), 0)}


def test_rows_stay_where_any_position_reads_them() -> None:
    sketch = Sketch()
    y = sketch.call(LINEAR, sketch.input("b", 2, 3), sketch.weight("w", matrix(3, 3)))
    assert cuts(sketch, reader(sketch, y, [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])) == {"w": Cut("w", (3, 3), {}, (1,), 0)}


def test_only_rows_that_stay_are_cleared() -> None:
    """Two linears on one axis: index 3 goes, index 2 is for the second alone, index 1 for the first alone."""
    sketch = Sketch()
    x = sketch.input("b", 2)
    parts = []
    for name, keep in (("first", [1.0, 1, 0, 0]), ("second", [1.0, 0, 1, 0])):
        y = sketch.call(LINEAR, x, sketch.weight(name, matrix(4, 2)))
        parts.append(reader(sketch, y, keep, f"{name}_keep"))
    out = sketch.call(LINEAR, sketch.call(aten.add.Tensor, *parts), sketch.weight("down", matrix(3, 4)))
    found = cuts(sketch, out)
    assert found["first"] == Cut("first", (4, 2), {0: (0, 1, 2)}, (2,), 0)
    assert found["second"] == Cut("second", (4, 2), {0: (0, 1, 2)}, (1,), 0)


def test_head_views_count_what_is_left_and_views_of_three_are_none() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    q, v, other = (sketch.call(LINEAR, x, sketch.weight(n, matrix(12, 3))) for n in ("q", "v", "other"))
    sketch.call(aten.reshape.default, other, [-1, 3, 2, 2])
    first, second = (sketch.call(aten.reshape.default, n, [-1, 3, 4]) for n in (v, q))
    rows = torch.tensor([[True, False, False, False], [False] * 4, [False, False, True, True]])
    coupling = sketch.coupling({first: rows, second: rows})
    assert head_views(coupling) == (HeadView("q", 0, (3, 4), (2, 3)), HeadView("v", 0, (3, 4), (2, 3)))
    inner = coupling.class_of[next(g for g in coupling.ties.grids if g.flat.value == q.name).parts[1]]
    coupling.rows[inner] = torch.tensor([[True, True, False, False]] * 3)
    assert {view.parameter: view.after for view in head_views(coupling)} == {"q": (2, 2), "v": (2, 3)}
