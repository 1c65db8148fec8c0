"""Views: permuted, expanded and reshaped dims, and literal sizes that follow a cut."""

from __future__ import annotations

import pytest
import torch

from passes.ops.arguments import argument
from passes.ops.facts import fact_shape
from passes.ops.views import EXPAND, UNFLATTEN, VIEW, permutation
from tests.passes.sketch import Sketch, keeps, tied

aten = torch.ops.aten
T, F = True, False


@pytest.mark.parametrize(
    ("target", "arguments", "order"),
    [
        (aten.permute.default, ([2, 0, -2],), [2, 0, 1]),
        (aten.transpose.int, (0, -1), [2, 1, 0]),
        (aten.mT.default, (), [0, 2, 1]),
        (aten.movedim.int, (0, 2), [1, 2, 0]),
    ],
)
def test_permutations_by_any_name(
    target: torch._ops.OpOverload, arguments: tuple[object, ...], order: list[int]
) -> None:
    sketch = Sketch()
    x = sketch.free(2, 3, 4)
    node = sketch.call(target, x, *arguments)
    assert permutation(node) == order
    coupling = sketch.coupling({})
    assert all(tied(coupling, (node, out), (x, d)) for out, d in enumerate(order))


def test_a_static_dim_viewed_by_a_size_of_the_data_is_read_by_all_of_them() -> None:
    """Where the size comes from the data, torch does not bind it to a number."""
    sketch = Sketch()
    x = sketch.fixed(sketch.input(10, dtype=torch.float64), [1.0] * 9 + [float("nan")])
    node = sketch.call(aten.view.default, x, [5, 2])
    size = sketch.input("b", 2, name="y").meta["val"].shape[0]
    node.meta["val"] = node.meta["val"].new_empty((size, 2))
    constants = sketch.constants(node)
    assert fact_shape(node) == (1, 2)
    assert not constants.fact(node).const.any()


def test_literal_sizes_follow_the_cut_also_over_an_inferred_one() -> None:
    sketch = Sketch()
    x = sketch.free("b", 6)
    view, split = sketch.call(aten.reshape.default, x, [5, 2, -1]), sketch.call(aten.unflatten.int, x, -1, [2, -1])
    coupling = sketch.coupling({view: [[T, F, T], [F, F, F]]})
    for rule, node in ((VIEW, view), (UNFLATTEN, split)):
        assert rule.resize is not None
        rule.resize(node, coupling)
    assert argument(view, "shape") == [5, 1, 2]
    assert argument(split, "sizes") == [1, 2]


def test_expanded_sizes_follow_unless_they_are_the_sources() -> None:
    sketch = Sketch()
    x = sketch.free("b", 3, 1)
    written = sketch.call(aten.expand.default, x, [-1, 3, 4])
    left = sketch.call(aten.expand.default, x, [-1, -1, 4])
    live = torch.tensor([[F, T, F, F], [F, F, F, F], [F, T, F, F]])
    coupling = sketch.coupling({written: live, left: live})
    assert EXPAND.resize is not None
    for node, sizes in ((written, [-1, 2, 1]), (left, [-1, -1, 1])):
        EXPAND.resize(node, coupling)
        assert argument(node, "size") == sizes


def test_expand_as_ties_the_result_to_both() -> None:
    sketch = Sketch()
    x, like = sketch.free("b", 1, 3), sketch.free("b", 2, 3, name="like")
    out = sketch.call(aten.expand_as.default, x, like)
    coupling = sketch.coupling({like: [[T, F, F], [F, F, F]]})
    assert tied(coupling, (out, 1), (like, 1))
    assert tied(coupling, (out, 2), (like, 2), (x, 2))
    assert keeps(coupling, out, 1) == [T, F]
    assert keeps(coupling, x, 2) == [T, F, F]


def test_channels_viewed_as_data_and_channels_are_constant_where_all_agree() -> None:
    """14 channels as t pairs, where the trace did not bind t to 7."""
    sketch = Sketch()
    x, pairs = sketch.input("b", 14), sketch.input("b", "t", 2, name="pairs")
    same, other = sketch.fixed(x, [3.0] * 14, "same"), sketch.fixed(x, [3.0] * 13 + [4.0], "other")
    views = [sketch.graph.call_function(aten.reshape.default, (value, [-1, 7, 2])) for value in (same, other)]
    for view in views:
        view.meta["val"] = pairs.meta["val"]
    constants = sketch.constants(*views)
    assert constants.fact(views[0]).value.tolist() == [[[3.0, 3.0]]]
    assert not bool(constants.fact(views[1]).const.any())


def test_dims_that_an_expansion_adds_stand_in_front() -> None:
    sketch = Sketch()
    x = sketch.free(2, 3)
    out = sketch.call(aten.expand.default, x, [5, -1, -1])
    coupling = sketch.coupling({})
    assert tied(coupling, (x, 0), (out, 1))
    assert tied(coupling, (x, 1), (out, 2))
