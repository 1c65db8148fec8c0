"""Fused attention: masks are read, constant keys are not, grouped heads follow their group, the scale is said."""

from __future__ import annotations

import pytest
import torch

from passes.ops.arguments import argument
from passes.ops.attention import RULE, group_size
from passes.ops.facts import along
from passes.ops.table import rule_for
from tests.passes.sketch import NAN, Sketch, keeps, reader, reason, tied

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
T, F = True, False


def test_constant_values_come_out_for_every_query_head_of_the_group() -> None:
    sketch = Sketch()
    q, k, v = (
        sketch.input("b", 4, "t", 2),
        sketch.input("b", 2, "t", 2, name="k"),
        sketch.input("b", 2, "t", 2, name="v"),
    )
    v = sketch.fixed(v, [[[NAN, 3.0]], [[NAN, NAN]]])
    out = sketch.call(SDPA, q, k, v, enable_gqa=True)
    fact = sketch.constants(out).fact(out)
    assert group_size(out) == 2
    assert fact.const[0, :, 0].tolist() == [[F, T], [F, T], [F, F], [F, F]]
    assert fact.value[0, :, 0, 1].tolist() == [3.0, 3.0, 0.0, 0.0]


def test_active_dropout_is_no_case_of_the_rule() -> None:
    """Without one of its heads the others would drop other entries."""
    sketch = Sketch()
    x = sketch.input("b", 2, "t", 2)
    out = sketch.call(SDPA, x, x, sketch.fixed(x, [1.0, NAN]), None, 0.5)
    assert rule_for(out) is not RULE
    assert not bool(sketch.constants(out).fact(out).const.any())
    assert rule_for(sketch.call(SDPA, x, x, x, None, 0.0)) is RULE


def test_what_a_live_head_reads() -> None:
    """Head 0 is read. Its key dim 0 is constant over the keys and query dim 1 is 0: neither pair says anything."""
    sketch = Sketch()
    q, k, v = (sketch.input("b", 2, "t", 3, name=n) for n in "qkv")
    mask = sketch.input("b", 2, "t", "t", name="mask")
    query, key = sketch.fixed(q, [NAN, 0.0, NAN], "fixed_q"), sketch.fixed(k, [5.0, NAN, NAN], "fixed_k")
    out = sketch.call(SDPA, query, key, v, mask)
    liveness = sketch.liveness(reader(sketch, out, [[[0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]]))
    assert liveness.of(query)[0, :, 0].tolist() == [[F, F, T], [F, F, F]]
    assert liveness.of(key)[0, :, 0].tolist() == [[F, F, T], [F, F, F]]
    assert liveness.of(v)[0, :, 0].tolist() == [[F, T, F], [F, F, F]]
    assert liveness.of(mask)[0, :, 0, 0].tolist() == [T, F]


def test_a_key_head_lives_with_any_query_head_of_its_group() -> None:
    sketch = Sketch()
    q, k = sketch.input("b", 4, "t", 2), sketch.input("b", 2, 5, 2, name="k")
    out = sketch.call(SDPA, q, k, k, enable_gqa=True)
    liveness = sketch.liveness(reader(sketch, out, [[[0.0]], [[1.0]], [[0.0]], [[0.0]]]))
    assert along(liveness.of(k), 1).tolist() == [T, F]
    assert along(liveness.of(q), 1).tolist() == [F, T, F, F]


def test_query_dims_go_with_key_dims_and_keys_are_never_cut() -> None:
    sketch = Sketch()
    q, k, v = (sketch.free("b", 2, size, dim, name=n) for n, size, dim in (("q", 4, 3), ("k", 6, 3), ("v", 6, 5)))
    out = sketch.call(SDPA, q, k, v)
    coupling = sketch.coupling({out: [T, F, F, F, F], k: [[[F, T, F]], [[F, F, F]]]})
    assert keeps(coupling, v, -1) == [T, F, F, F, F]
    assert keeps(coupling, q, -1) == [F, T, F]
    assert keeps(coupling, q, 1) == [T, T]  # the heads of all three
    assert tied(coupling, (q, 1), (k, 1), (v, 1), (out, 1))
    assert tied(coupling, (q, 2), (out, 2))
    assert reason(coupling, k, 2) == reason(coupling, v, 2) == "the keys a softmax runs over"
    assert reason(coupling, q, 2) is None


def test_the_scale_of_the_whole_head_is_said_before_it_shrinks() -> None:
    sketch = Sketch()
    x = sketch.input("b", 2, "t", 16)
    implied, given = sketch.call(SDPA, x, x, x), sketch.call(SDPA, x, x, x, scale=2.0)
    for node in (implied, given):
        RULE.resize(node, None)  # type: ignore[misc, arg-type]
    assert (argument(implied, "scale"), argument(given, "scale")) == (0.25, 2.0)


@pytest.mark.parametrize(
    ("q", "k", "v", "ours"),
    [
        (("b", 2, "t", 4), ("b", 2, "t", 4), ("b", 2, "t", 3), True),
        (("b", 2, "t", 4), ("b", 1, "t", 4), ("b", 1, "t", 4), True),  # one key head for both: a group
        (("b", 2, "t", 4), ("b", 2, "t", 4), ("b", 1, "t", 4), False),
        (("b", 1, "t", 4), ("b", 2, "t", 4), ("b", 2, "t", 4), False),
        (("b", 2, "t", 4), (1, 2, "t", 4), (1, 2, "t", 4), False),
        (("b", 2, "t", 4), (2, "t", 4), (2, "t", 4), False),
        (("b", 2, "t", 4), ("b", 2, "t", 4), (2, "t", 4), False),
        (("b", 2, "t", "s"), ("b", 2, "t", "s"), ("b", 2, "t", 4), False),  # head dims that are data
        (("b", 2, "t", 4), ("b", 2, "t", 4), ("b", 2, "t", "s"), False),
        (("b", "t", "s", 4), ("b", "t", "s", 4), ("b", "t", "s", 4), True),
        (("b", "t", 4), ("b", "t", 4), ("b", "t", 3), True),
        ((2, "t", 4), (1, "t", 4), (1, "t", 4), False),
        ((2, "t", 4), (2, "t", 4), (1, "t", 4), False),
        (("t", 4), ("s", 4), ("s", 3), True),
    ],
)
def test_values_that_broadcast_get_the_default(
    q: tuple[int | str, ...], k: tuple[int | str, ...], v: tuple[int | str, ...], ours: bool
) -> None:
    sketch = Sketch()
    node = sketch.call(SDPA, *(sketch.input(*shape, name=n) for n, shape in zip("qkv", (q, k, v), strict=True)))
    assert (rule_for(node) is RULE) == ours


def test_attention_without_heads_has_no_groups() -> None:
    sketch = Sketch()
    q, k, v = (sketch.input("b", 5, 2, name=n) for n in "qkv")
    out = sketch.call(SDPA, q, k, sketch.fixed(v, [3.0, NAN]))
    assert group_size(out) == 1
    assert sketch.constants(out).fact(out).const[0].tolist() == [[T, F]] * 5


def test_query_heads_go_with_the_dims_in_front_and_key_heads_with_their_group() -> None:
    sketch = Sketch()
    q, k, v = (sketch.free("b", 3, h, 5, 2, name=n) for n, h in (("q", 4), ("k", 2), ("v", 2)))
    out = sketch.call(SDPA, q, k, v, enable_gqa=True)
    live = torch.zeros(1, 3, 4, 1, 1, dtype=torch.bool)
    live[:, 2, :2] = True
    coupling = sketch.coupling({out: live})
    assert tied(coupling, (q, 1), (k, 1), (v, 1), (out, 1))
    assert keeps(coupling, k, 1) == [F, F, T]
    assert keeps(coupling, q, 2) == keeps(coupling, out, 2) == [T, T, F, F]
    assert keeps(coupling, k, 2) == keeps(coupling, v, 2) == [T, F]


def test_a_mask_covers_the_queries_that_are_left() -> None:
    sketch = Sketch()
    q, k = sketch.free("b", 2, 4, 3, name="q"), sketch.free("b", 2, "t", 3, name="k")
    mask = sketch.free("b", 1, 4, "t", name="mask")
    out = sketch.call(SDPA, q, k, k, mask)
    coupling = sketch.coupling({out: [[T], [F], [F], [T]]})
    assert keeps(coupling, mask, 2) == keeps(coupling, q, 2) == [T, F, F, T]


def test_the_keys_of_a_mask_stay() -> None:
    sketch = Sketch()
    q, k = sketch.free("b", 2, 4, 3, name="q"), sketch.free("b", 2, 5, 3, name="k")
    mask = sketch.free("b", 1, 4, 5, name="mask")
    sketch.call(SDPA, q, k, k, mask)
    coupling = sketch.coupling({})
    assert reason(coupling, mask, 3) == "the keys a softmax runs over"
    assert reason(coupling, mask, 2) is None


def test_query_heads_of_one_key_head_go_alone() -> None:
    sketch = Sketch()
    q, k = sketch.free("b", 4, "t", 3, name="q"), sketch.free("b", 1, "t", 3, name="k")
    out = sketch.call(SDPA, q, k, k, enable_gqa=True)
    coupling = sketch.coupling({out: torch.tensor([F, T, F, T])[:, None, None]})
    assert keeps(coupling, q, 1) == keeps(coupling, out, 1) == [F, T, F, T]
