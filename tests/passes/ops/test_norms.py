"""Normalisations: dead affine weights leave the bias, everything normalised together is read, and none of it goes."""

from __future__ import annotations

import pytest
import torch

from passes.ops.norms import BATCH_NORM, LAYER_NORM
from passes.ops.table import rule_for
from tests.passes.sketch import NAN, Sketch, keeps, reader, reason, tied

aten = torch.ops.aten
T, F = True, False


def test_a_dead_weight_leaves_the_bias() -> None:
    sketch = Sketch()
    x, weight, bias = sketch.input("b", 3), sketch.weight("w", [0.0, 1.0, 0.0]), sketch.weight("c", [5.0, 6.0, 0.0])
    norm = sketch.call(aten.layer_norm.default, x, [3], weight, bias)
    scaled = sketch.call(aten.rms_norm.default, x, [3], weight)
    plain = sketch.call(aten.layer_norm.default, x, [3])
    constants = sketch.constants(norm, scaled, plain)
    assert constants.fact(norm).const[0].tolist() == [T, F, T]
    assert constants.fact(norm).value[0].tolist() == [5.0, 0.0, 0.0]
    assert constants.fact(scaled).const[0].tolist() == [T, F, T]
    assert not bool(constants.fact(plain).const.any())


def test_one_live_channel_reads_all_that_is_normalised_with_it_and_pins_them() -> None:
    sketch = Sketch()
    x, weight = sketch.free("b", 2, 3), sketch.weight("w", [1.0, 1.0, 1.0])
    norm = sketch.call(aten.layer_norm.default, x, [3], weight)
    live_out = torch.tensor([[[F, T, F], [F, F, F]]])
    live = LAYER_NORM.live(norm, live_out, None)  # type: ignore[arg-type]
    assert live[x].tolist() == [[[T, T, T], [F, F, F]]]
    assert live[weight].tolist() == [F, T, F]
    coupling = sketch.coupling({norm: live_out})
    assert keeps(coupling, x, 1) == [T, F]
    assert reason(coupling, x, 2) == "normalised by layer_norm"
    assert tied(coupling, (weight, 0), (norm, 2), (x, 2))


def test_group_norm_mixes_channels_and_positions() -> None:
    sketch = Sketch()
    x = sketch.input("b", 4, 3)
    norm = sketch.call(aten.group_norm.default, x, 2, sketch.weight("w", [0.0, 1.0, 1.0, 1.0]))
    keep = torch.zeros(4, 3, dtype=torch.float64)
    keep[1, 2] = 1
    liveness = sketch.liveness(reader(sketch, norm, keep))
    assert bool(liveness.of(x).all())
    assert not bool(liveness.constants.fact(norm).const.any())


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_leaves_channels_apart_in_eval_mode_only(training: bool) -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2, "t"), [[3.0], [NAN]])
    weight, bias = sketch.weight("w", [2.0, 1.0]), sketch.weight("c", [1.0, 1.0])
    mean, variance = sketch.weight("m", [1.0, 1.0]), sketch.weight("v", [4.0, 4.0])
    norm = sketch.call(aten.batch_norm.default, x, weight, bias, mean, variance, training, 0.1, 0.0, False)
    liveness = sketch.liveness(reader(sketch, norm, [[0.0], [1.0]]))
    fact = liveness.constants.fact(norm)
    assert (rule_for(norm) is BATCH_NORM) == (not training)
    if not training:
        assert fact.const[0, :, 0].tolist() == [T, F]
        assert fact.value[0, 0, 0].item() == pytest.approx((3 - 1) / 2 * 2 + 1)
        live = BATCH_NORM.live(norm, torch.tensor([[[F], [T]]]), liveness.constants)
        assert all(live[operand].tolist() == [F, T] for operand in (weight, bias, mean, variance))
    assert liveness.of(x)[0, :, 0].tolist() == [training, T]


def test_batch_norm_without_weight_and_bias_only_standardises() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [5.0, NAN])
    mean, variance = sketch.weight("m", [1.0, 1.0]), sketch.weight("v", [4.0, 4.0])
    norm = sketch.call(aten.batch_norm.default, x, None, None, mean, variance, False, 0.1, 5.0, False)
    fact = sketch.constants(norm).fact(norm)
    assert fact.const[0].tolist() == [T, F]
    assert fact.value[0, 0].item() == pytest.approx((5 - 1) / 3)


def test_what_group_norm_normalises_stays_and_what_is_in_front_does_not() -> None:
    sketch = Sketch()
    x = sketch.free(5, 4, 3)
    norm = sketch.call(aten.group_norm.default, x, 2)
    coupling = sketch.coupling({norm: torch.tensor([F, T, F, F, F])[:, None, None]})
    assert keeps(coupling, x, 0) == [F, T, F, F, F]
    assert reason(coupling, x, 1) == reason(coupling, norm, 2) == "normalised by group_norm"


def test_a_weight_of_several_dims_goes_with_each_of_them() -> None:
    sketch = Sketch()
    x, weight = sketch.free("b", 2, 3, 4), sketch.weight("w", torch.ones(2, 3, 4).double())
    norm = sketch.call(aten.layer_norm.default, x, [2, 3, 4], weight)
    coupling = sketch.coupling({})
    assert all(tied(coupling, (weight, d), (norm, d + 1), (x, d + 1)) for d in range(3))
