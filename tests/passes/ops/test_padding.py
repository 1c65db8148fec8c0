"""Padding: constant beside constant is constant, a padded dim is read whole and stays."""

from __future__ import annotations

import torch

from passes.ops.padding import PAD
from tests.passes.sketch import NAN, Sketch, reason, tied

aten = torch.ops.aten
T, F = True, False


def test_padding_of_channels_adds_its_number() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [3.0, NAN])
    out = sketch.call(aten.constant_pad_nd.default, x, [2, 1], 7.0)
    plain = sketch.call(aten.pad.default, x, [1, 0])
    constants = sketch.constants(out, plain)
    assert constants.fact(plain).value[0].tolist() == [0.0, 3.0, 0.0]
    fact = constants.fact(out)
    assert fact.const[0].tolist() == [T, T, T, F, T]
    assert fact.value[0].tolist() == [7.0, 7.0, 3.0, 0.0, 7.0]


def test_padding_of_data_leaves_only_its_own_number_constant() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", "t", 3), [7.0, 3.0, NAN])
    out = sketch.call(aten.constant_pad_nd.default, x, [0, 0, 1, 0], 7.0)
    both = sketch.call(aten.constant_pad_nd.default, x, [1, 0, 1, 0], 7.0)
    reflected = sketch.call(aten.pad.default, x, [1, 0], "reflect")
    constants = sketch.constants(out, both, reflected)
    assert constants.fact(out).const[0, 0].tolist() == [T, F, F]
    assert constants.fact(both).const[0, 0].tolist() == [T, T, F, F]
    assert not bool(constants.fact(reflected).const.any())


def test_a_padded_dim_is_read_whole_and_stays_and_the_others_are_the_same() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 3)
    out = sketch.call(aten.pad.default, x, [1, 0])
    live = PAD.live(out, torch.tensor([[[F, F, F, F], [F, T, F, F]]]), None)  # type: ignore[arg-type]
    assert live[x].tolist() == [[[F, F, F], [T, T, T]]]
    coupling = sketch.coupling({})
    assert reason(coupling, x, 2) == reason(coupling, out, 2) == "padded"
    assert tied(coupling, (x, 1), (out, 1))
    assert reason(coupling, x, 1) is None


def test_each_dim_gets_its_own_width() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2, 2), [[3.0, NAN], [NAN, 4.0]])
    out = sketch.call(aten.constant_pad_nd.default, x, [0, 1, 2, 1], 7.0)
    fact = sketch.constants(out).fact(out)
    filled = [7.0, 7.0, 7.0]
    assert fact.const[0].tolist() == [[T, T, T], [T, T, T], [T, F, T], [F, T, T], [T, T, T]]
    assert fact.value[0].tolist() == [filled, filled, [3.0, 0.0, 7.0], [0.0, 4.0, 7.0], filled]
