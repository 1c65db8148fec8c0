"""Convolutions: y[:, o] = Σ_i W[o, i] ∗ x[:, i] + b[o]. Channels behave as in a linear layer, positions are data.

Padding puts zeros beside a constant channel, so with padding only a constant 0 counts as constant.
Grouped convolutions pin their channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from passes.analysis.rule import Live, Rule
from passes.channels import Fact, any_over, collapse_fact, fact_shape, make_fact, shape_of, tensor_inputs, tensor_of

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.analysis.ties import Ties

aten = torch.ops.aten
CONVOLUTIONS = frozenset({aten.conv1d.default, aten.conv2d.default, aten.conv3d.default})


def _argument(node: fx.Node, position: int, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else default


def _groups(node: fx.Node) -> int:
    return int(_argument(node, 6, 1))


def _positions(node: fx.Node) -> range:
    return range(2, len(shape_of(node)))


def _nonzero(node: fx.Node, constants: Constants) -> torch.Tensor:
    """(out, in): some tap of the kernel is not 0. Grouped kernels count as dense."""
    out_channels, in_channels = shape_of(node)[1], shape_of(tensor_inputs(node)[0])[1]
    weight = constants.fact(tensor_inputs(node)[1]).value
    if _groups(node) != 1:
        return torch.ones(out_channels, in_channels, dtype=torch.bool)
    return (weight != 0).flatten(2).any(2)


def constant(node: fx.Node, constants: Constants) -> Fact:
    fake, shape = tensor_of(node), fact_shape(node)
    assert fake is not None
    x = collapse_fact(constants.fact(tensor_inputs(node)[0]), _positions(node))
    fixed = x.zero.reshape(x.const.shape[0], -1)  # (1 or N, in)
    unknown = (~fixed).float() @ _nonzero(node, constants).float().t() > 0
    bias = _argument(node, 2, None)
    value = constants.fact(bias).value if isinstance(bias, fx.Node) else torch.zeros(shape[1], dtype=fake.dtype)
    tail = (1,) * (len(shape) - 2)
    const = (~unknown).reshape(*unknown.shape, *tail)
    return make_fact(const.expand(shape), value.to(fake.dtype).reshape(1, -1, *tail).expand(shape))


def live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    source = tensor_inputs(node)[0]
    channels = any_over(live_out, _positions(node)).reshape(live_out.shape[0], -1)
    reads = channels.float() @ _nonzero(node, constants).float() > 0
    shape = fact_shape(source)
    return {source: reads.reshape(*reads.shape, *(1,) * (len(shape) - 2)).expand(shape)}


def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source, weight = tensor_inputs(node)[:2]
    ties.pin(source, _positions(node), "the positions of a convolution")
    ties.pin(node, _positions(node), "the positions of a convolution")
    ties.pin(weight, range(2, len(shape_of(weight))), "the taps of a convolution")
    ties.same(ties.axis(source, 0), ties.axis(node, 0))
    for value, dim in ((weight, 0), (weight, 1)):
        ties.axis(value, dim)
    if _groups(node) != 1:
        for value, dim in ((source, 1), (weight, 0), (weight, 1), (node, 1)):
            ties.pin(value, [dim], "the channels of a grouped convolution")
    else:
        ties.same(ties.axis(source, 1), ties.axis(weight, 1))
        ties.same(ties.axis(node, 1), ties.axis(weight, 0))
    bias = _argument(node, 2, None)
    if isinstance(bias, fx.Node):
        ties.same(ties.axis(node, 1), ties.axis(bias, 0))


RULE = Rule("convolution", constant, live, ties)
