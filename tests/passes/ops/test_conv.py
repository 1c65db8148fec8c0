"""Convolutions: padding stands beside a constant, groups read their own channels, their count follows."""

from __future__ import annotations

from typing import Any

import torch

from passes.ops.arguments import argument
from passes.ops.conv import RULE
from passes.ops.table import rule_for
from tests.passes.sketch import NAN, Sketch, keeps, reader, reason, tied

aten = torch.ops.aten
T, F = True, False


def test_only_a_constant_0_is_constant_behind_a_kernel() -> None:
    """Channel 0 is 0 and channel 1 is 2: beside padding, 2 is not 2 everywhere."""
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 3, "t"), [[0.0], [2.0], [NAN]])
    kernel, bias = torch.ones(3, 3, 3).double() * torch.eye(3).double()[:, :, None], sketch.weight("c", [7.0, 8.0, 9.0])
    out = sketch.call(aten.conv1d.default, x, sketch.weight("w", kernel), bias, [1], [1])
    liveness = sketch.liveness(reader(sketch, out, [[1.0], [1.0], [0.0]]))
    fact = liveness.constants.fact(out)
    assert fact.const[0, :, 0].tolist() == [T, F, F]
    assert fact.value[0, :, 0].tolist() == [7.0, 0.0, 0.0]
    assert liveness.of(x)[0, :, 0].tolist() == [F, T, F]  # channel 0 is 0, and nobody reads output 2


def grouped(sketch: Sketch) -> tuple[torch.fx.Node, torch.fx.Node, torch.fx.Node]:
    x = sketch.free("b", 4, "t")
    weight = sketch.weight("w", torch.ones(6, 2, 1).double())
    return x, weight, sketch.call(aten.conv1d.default, x, weight, None, [1], [0], [1], 2)


def test_a_group_reads_its_own_channels_and_goes_whole() -> None:
    sketch = Sketch()
    x, weight, out = grouped(sketch)
    live_out = torch.tensor([F, F, F, F, T, F])[None, :, None]
    constants = sketch.constants()
    assert RULE.live(out, live_out, constants)[x].flatten().tolist() == [F, F, T, T]
    sketch = Sketch()
    x, weight, out = grouped(sketch)
    coupling = sketch.coupling({out: live_out, x: [[F], [F], [T], [F]]})
    assert keeps(coupling, x, 1) == [F, F, T, F]
    assert keeps(coupling, out, 1) == [F, F, F, F, T, F]
    assert tied(coupling, (out, 1), (weight, 0))


class Counts:
    def __init__(self, counts: dict[Any, int]) -> None:
        self.counts = counts

    def keep(self, node: torch.fx.Node, dim: int) -> None:
        return None

    def count(self, node: torch.fx.Node, dim: int) -> int | None:
        return self.counts.get((node, dim))


def test_the_count_of_groups_follows_the_channels_that_are_left() -> None:
    sketch = Sketch()
    x, _, out = grouped(sketch)
    assert RULE.resize is not None
    RULE.resize(out, Counts({(x, 1): 2}))
    assert argument(out, "groups") == 1


def test_positions_and_taps_stay_and_an_unbatched_input_gets_the_default() -> None:
    sketch = Sketch()
    x, weight = sketch.free("b", 2, 5), sketch.weight("w", torch.ones(2, 2, 3).double())
    out = sketch.call(aten.conv1d.default, x, weight)
    alone = sketch.call(aten.conv1d.default, sketch.input(2, 5, name="alone"), weight)
    assert rule_for(out) is RULE
    assert rule_for(alone) is not RULE
    sketch.graph.erase_node(alone)
    coupling = sketch.coupling({})
    assert reason(coupling, x, 2) == reason(coupling, out, 2) == "the positions of a convolution"
    assert reason(coupling, weight, 2) == "the taps of a convolution"
    assert reason(coupling, x, 1) is None


def test_one_tap_reads_a_channel_and_one_image_reads_the_kernel() -> None:
    """Output 0 reads channel 1 by its last tap alone; output 1 is read of the second image alone."""
    sketch = Sketch()
    kernel = torch.zeros(2, 2, 3).double()
    kernel[0, 1, 2] = kernel[1, 0, 0] = 1
    x, weight = sketch.input(2, 2, "t"), sketch.weight("w", kernel)
    out = sketch.call(aten.conv1d.default, x, weight, sketch.weight("c", [0.0, 0.0]))
    live = RULE.live(out, torch.tensor([[T, F], [T, T]])[:, :, None], sketch.constants(out))
    assert live[x][:, :, 0].tolist() == [[F, T], [T, T]]
    assert live[weight][:, 0, 0].tolist() == [T, T]


def test_images_go_with_their_result_and_the_bias_with_its_channel() -> None:
    sketch = Sketch()
    x, bias = sketch.free(3, 2, "t"), sketch.weight("c", [0.0] * 4)
    out = sketch.call(aten.conv1d.default, x, sketch.weight("w", torch.ones(4, 2, 1).double()), bias)
    live_out = torch.zeros(3, 4, 1, dtype=torch.bool)
    live_out[1, 2] = True
    coupling = sketch.coupling({out: live_out})
    assert keeps(coupling, x, 0) == keeps(coupling, out, 0) == [F, T, F]
    assert keeps(coupling, bias, 0) == keeps(coupling, out, 1) == [F, F, T, F]


def test_a_depthwise_convolution_couples_outputs_to_their_inputs() -> None:
    sketch = Sketch()
    x = sketch.free("b", 3, "t")
    out = sketch.call(aten.conv1d.default, x, sketch.weight("w", torch.ones(3, 1, 1).double()), None, [1], [0], [1], 3)
    twice = sketch.call(
        aten.conv1d.default, x, sketch.weight("w2", torch.ones(6, 1, 1).double()), None, [1], [0], [1], 3
    )
    coupling = sketch.coupling({out: torch.tensor([F, T, F])[:, None]})
    assert tied(coupling, (x, 1), (out, 1))
    assert keeps(coupling, x, 1) == [F, T, F]
    assert keeps(coupling, twice, 1) == [F] * 6


def test_a_channel_of_zeros_needs_no_taps() -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 4, "t"), [[0.0], [NAN], [0.0], [NAN]])
    weight = sketch.weight("w", torch.ones(6, 2, 1).double())
    out = sketch.call(aten.conv1d.default, x, weight, None, [1], [0], [1], 2)
    live = RULE.live(out, torch.tensor([F, F, F, F, T, F])[None, :, None], sketch.constants(out))
    assert live[weight][..., 0].tolist() == [[F, F]] * 4 + [[F, T], [F, F]]
