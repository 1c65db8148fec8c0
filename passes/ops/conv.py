"""Convolutions: y[:, o] = Σ_i W[o, i] ∗ x[:, i] + b[o]. Channels behave as in a linear layer, positions are data.

Padding puts zeros beside a channel, so only a constant 0 counts as constant.

With G groups the kernel is block-diagonal: group g reads the K input channels g·K … and writes the M output channels
g·M …; the input channels are a grid (G, K), the output channels a grid (G, M). A depthwise convolution (K = 1) couples
output channels to their input channel.
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_of
from passes.ops.arguments import argument, first_argument, set_argument, tensor_argument
from passes.ops.facts import Fact, any_over, collapse_fact, fact_shape, make_fact
from passes.ops.rule import Facts, Keeps, Kind, Live, Rule
from passes.ops.ties import Ties

aten = torch.ops.aten


def _kernel(node: fx.Node) -> fx.Node:
    weight = tensor_argument(node, "weight")
    assert weight is not None
    return weight


def _positions(node: fx.Node) -> range:
    return range(2, len(shape_of(node)))


def _nonzero(node: fx.Node, facts: Facts) -> torch.Tensor:
    """(out, in): some tap of the kernel may be other than 0. A kernel that is computed may be anything."""
    taps = (~facts.fact(_kernel(node)).zero).flatten(2).any(2)  # (out, in / groups)
    groups = argument(node, "groups")
    if groups == 1:
        return taps
    own = torch.eye(groups, dtype=torch.bool)[:, None, :, None]  # (G, M, G, K): a group reads its own channels
    return (own & taps.unflatten(0, (groups, -1)).unsqueeze(2)).flatten(2).flatten(0, 1)


def constant(node: fx.Node, facts: Facts) -> Fact:
    fake, shape = tensor_of(node), fact_shape(node)
    assert fake is not None
    x = collapse_fact(facts.fact(first_argument(node)), _positions(node))
    fixed = x.zero.reshape(x.const.shape[0], -1)  # (1 or N, in)
    const = ((~fixed).float() @ _nonzero(node, facts).float().t()) == 0
    bias = tensor_argument(node, "bias")
    value = torch.zeros(shape[1], dtype=fake.dtype)
    if bias is not None:
        shift = facts.fact(bias)
        const, value = const & shift.const, shift.value.to(fake.dtype)
    tail = (1,) * (len(shape) - 2)
    return make_fact(const.reshape(*const.shape, *tail).expand(shape), value.reshape(1, -1, *tail).expand(shape))


def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    source, weight, bias = first_argument(node), _kernel(node), tensor_argument(node, "bias")
    channels = any_over(live_out, _positions(node)).reshape(live_out.shape[0], -1)
    reads = channels.float() @ _nonzero(node, facts).float() > 0
    zero, shape = facts.fact(source).zero, fact_shape(source)
    result = {source: reads.reshape(*reads.shape, *(1,) * (len(shape) - 2)) & ~zero.expand(shape)}
    rows, groups = channels.any(0), argument(node, "groups")
    useful = any_over(~zero.expand(shape), [d for d in range(len(shape)) if d != 1]).reshape(-1)
    taps = (rows.view(groups, -1, 1) & useful.view(groups, 1, -1)).flatten(0, 1)  # (out, in / groups)
    taps = taps.reshape(*taps.shape, *[1] * (len(shape_of(weight)) - 2)).expand(fact_shape(weight))
    result[weight] = result.get(weight, torch.zeros((), dtype=torch.bool)) | taps
    if bias is not None:
        result[bias] = result.get(bias, torch.zeros((), dtype=torch.bool)) | rows
    return result


def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, weight, bias = first_argument(node), _kernel(node), tensor_argument(node, "bias")
    ties.pin(source, _positions(node), "the positions of a convolution")
    ties.pin(node, _positions(node), "the positions of a convolution")
    ties.pin(weight, range(2, len(shape_of(weight))), "the taps of a convolution")
    ties.same(ties.axis(source, 0), ties.axis(node, 0))
    ties.same(ties.axis(node, 1), ties.axis(weight, 0))
    if argument(node, "groups") == 1:
        ties.same(ties.axis(source, 1), ties.axis(weight, 1))
    else:
        _tie_groups(node, source, weight, ties)
    if bias is not None:
        ties.same(ties.axis(node, 1), ties.axis(bias, 0))


def _tie_groups(node: fx.Node, source: fx.Node, weight: fx.Node, ties: Ties) -> None:
    """Groups go whole; every kept group keeps the same of its input channels, and the same of its output channels."""
    count = argument(node, "groups")
    groups, per_group = ties.virtual(count), ties.axis(weight, 1)
    reads, writes = ties.axis(source, 1), ties.axis(node, 1)
    if reads is not None:
        ties.grid(reads, [groups] if per_group is None else [groups, per_group])
    if writes is not None:
        each = ties.sizes[writes] // count
        ties.grid(writes, [groups] if each == 1 else [groups, ties.virtual(each)])


def resize(node: fx.Node, keeps: Keeps) -> None:
    """A grouped convolution has as many groups as are left: all channels over those of one group."""
    if argument(node, "groups") == 1:
        return
    channels, per_group = (
        shape_of(value)[1] if (count := keeps.count(value, 1)) is None else count
        for value in (first_argument(node), _kernel(node))
    )
    set_argument(node, "groups", channels // per_group)


def _batched(node: fx.Node) -> bool:
    """(batch, channels, positions ...): an unbatched input has its channels in front."""
    return len(shape_of(first_argument(node))) == len(shape_of(_kernel(node)))


RULE = Rule("convolution", constant, live, ties, resize, Kind.CONVOLUTION, applies=_batched)

RULES = dict.fromkeys(
    (
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.conv1d.padding,
        aten.conv2d.padding,
        aten.conv3d.padding,
    ),
    RULE,
)
