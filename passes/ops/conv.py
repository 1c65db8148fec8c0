"""Convolutions: y[:, o] = Σ_i W[o, i] ∗ x[:, i] + b[o]. Channels behave as in a linear layer, positions are data.

Padding puts zeros beside a constant channel, so with padding only a constant 0 counts as constant.

With G groups the kernel is block-diagonal: group g reads the K input channels g·K … and writes the M output channels
g·M …; the input channels are a grid (G, K), the output channels a grid (G, M). A depthwise convolution (K = 1) couples
output channels to their input channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.facts import Fact, any_over, collapse_fact, fact_shape, make_fact
from passes.ops.rule import Live, Rule

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties

aten = torch.ops.aten
CONVOLUTIONS = frozenset(
    {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
     aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding}
)  # fmt: skip
GROUPS = 6  # position of the argument


def _argument(node: fx.Node, position: int, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else default


def group_count(node: fx.Node) -> int:
    return int(_argument(node, GROUPS, 1))


def _positions(node: fx.Node) -> range:
    return range(2, len(shape_of(node)))


def _nonzero(node: fx.Node, constants: Constants) -> torch.Tensor:
    """(out, in): some tap of the kernel is not 0."""
    taps = (constants.fact(tensor_inputs(node)[1]).value != 0).flatten(2).any(2)  # (out, in / groups)
    groups = group_count(node)
    if groups == 1:
        return taps
    own = torch.eye(groups, dtype=torch.bool)[:, None, :, None]  # (G, M, G, K): a group reads its own channels
    return (own & taps.unflatten(0, (groups, -1)).unsqueeze(2)).flatten(2).flatten(0, 1)


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
    fact, shape = constants.fact(source), fact_shape(source)
    return {source: reads.reshape(*reads.shape, *(1,) * (len(shape) - 2)) & ~fact.zero.expand(shape)}


def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source, weight = tensor_inputs(node)[:2]
    ties.pin(source, _positions(node), "the positions of a convolution")
    ties.pin(node, _positions(node), "the positions of a convolution")
    ties.pin(weight, range(2, len(shape_of(weight))), "the taps of a convolution")
    ties.same(ties.axis(source, 0), ties.axis(node, 0))
    ties.same(ties.axis(node, 1), ties.axis(weight, 0))
    if group_count(node) == 1:
        ties.same(ties.axis(source, 1), ties.axis(weight, 1))
    else:
        _tie_groups(node, source, weight, ties)
    bias = _argument(node, 2, None)
    if isinstance(bias, fx.Node):
        ties.same(ties.axis(node, 1), ties.axis(bias, 0))


def _tie_groups(node: fx.Node, source: fx.Node, weight: fx.Node, ties: Ties) -> None:
    """Groups go whole; every kept group keeps the same of its input channels, and the same of its output channels."""
    count = group_count(node)
    groups, per_group = ties.virtual(count), ties.axis(weight, 1)
    reads, writes = ties.axis(source, 1), ties.axis(node, 1)
    if reads is not None:
        ties.grid(reads, [groups] if per_group is None else [groups, per_group])
    if writes is not None:
        each = ties.sizes[writes] // count
        ties.grid(writes, [groups] if each == 1 else [groups, ties.virtual(each)])


RULE = Rule("convolution", constant, live, ties)
