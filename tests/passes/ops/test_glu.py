"""Gated linear units: a dead gate half makes 0, a dead value leaves its gate unread, and both halves go together."""

from __future__ import annotations

import math

import pytest
import torch

from passes.ops.glu import RULE
from tests.passes.sketch import NAN, Sketch, keeps, reader, tied

aten = torch.ops.aten
T, F = True, False


def test_constants_of_a_gate() -> None:
    """Columns (a | b): 0 and unknown, 2 and 1, unknown and 0, 2 and unknown."""
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 8), [0.0, 2.0, NAN, 2.0, NAN, 1.0, 0.0, NAN])
    out = sketch.call(aten.glu.default, x)
    fact = sketch.constants(out).fact(out)
    assert fact.const[0].tolist() == [T, T, F, F]
    assert fact.value[0].tolist() == [0.0, pytest.approx(2 / (1 + math.exp(-1))), 0.0, 0.0]


def test_a_gate_is_read_where_its_value_is_not_0() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 6), [0.0, NAN, NAN, NAN, NAN, NAN])
    out = sketch.call(aten.glu.default, x)
    live = RULE.live(out, torch.tensor([[T, T, F]]), sketch.constants(out))
    assert live[x].tolist() == [[T, T, F, F, T, F]]


def test_halves_go_together_and_other_dims_are_the_same() -> None:
    sketch = Sketch()
    x = sketch.free("b", 3, 6)
    out = sketch.call(aten.glu.default, x)
    coupling = sketch.coupling({out: [[F, F, F], [F, T, F], [F, F, F]]})
    assert keeps(coupling, x, 2) == [F, T, F, F, T, F]
    assert keeps(coupling, out, 2) == [F, T, F]
    assert tied(coupling, (x, 1), (out, 1))


def test_halves_of_data_are_read_alike() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", "t", 3), [1.0, NAN, NAN])
    whole = sketch.call(aten.cat.default, [x, x], 1)
    out = sketch.call(aten.glu.default, whole, 1)
    liveness = sketch.liveness(reader(sketch, out, [1.0, 0.0, 1.0]))
    assert not bool(liveness.constants.fact(out).const.any())
    assert liveness.of(whole)[0, 0].tolist() == [T, F, T]
