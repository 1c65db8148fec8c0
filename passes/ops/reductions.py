"""Operators that mix the entries along some dims: reductions, softmax, normalisations, cumulative sums.

Nothing they compute is constant, but for a norm whose affine weight is 0, a batch norm's constant channels, and the
mean, largest or smallest of constant entries. Every entry along a mixed dim is read when any result is, and mixed dims
are pinned: a mean over fewer channels is another mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.facts import Fact, any_over, fact_shape, make_fact, nothing_constant
from passes.ops.rule import Live, Rule

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties

aten = torch.ops.aten
Dims = Callable[[fx.Node], Sequence[int]]

# However many entries hold a number, these give that number again.
_AVERAGES: Mapping[Any, Callable[..., torch.Tensor]] = {
    aten.mean.dim: torch.mean,
    aten.mean.default: torch.mean,
    aten.amax.default: torch.amax,
    aten.amin.default: torch.amin,
}


def dims_argument(node: fx.Node) -> Sequence[int]:
    """The reduced dims of mean.dim, sum.dim_IntList, amax and the like, counted from 0; all when none are given."""
    rank = len(shape_of(tensor_inputs(node)[0]))
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if given is None or given == []:
        return range(rank)
    return [d % rank for d in (given if isinstance(given, list | tuple) else [given])]


def norm_dims_argument(node: fx.Node) -> Sequence[int]:
    """The reduced dims of linalg_vector_norm and norm.ScalarOpt_dim."""
    rank = len(shape_of(tensor_inputs(node)[0]))
    given: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim")
    return range(rank) if given is None else [d % rank for d in (given if isinstance(given, list | tuple) else [given])]


def _unknown_value(node: fx.Node, constants: Constants) -> Fact:
    fake = tensor_of(node)
    assert fake is not None
    return nothing_constant(fact_shape(node), fake.dtype)


def operator_name(node: fx.Node) -> str:
    """The plain name of an ATen operator, for reports."""
    return node.target._schema.name.partition("::")[2] if isinstance(node.target, torch._ops.OpOverload) else node.name


def reduction_rule(name: str, dims_of: Dims) -> Rule:
    """Dims disappear, or stay with size 1."""

    def live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
        source = tensor_inputs(node)[0]
        shape = fact_shape(source)
        dims = sorted(dims_of(node))
        if live_out.dim() < len(shape):
            for d in dims:
                live_out = live_out.unsqueeze(d)
        return {source: live_out.expand(shape)}

    def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
        source = tensor_inputs(node)[0]
        dims = set(dims_of(node))
        ties.pin(source, sorted(dims), f"reduced by {operator_name(node)}: over fewer channels it is another number")
        kept = [d for d in range(len(shape_of(source))) if d not in dims]
        keepdim = len(shape_of(node)) == len(shape_of(source))
        for position, d in enumerate(kept):
            ties.same(ties.axis(source, d), ties.axis(node, d if keepdim else position))

    def constant(node: fx.Node, constants: Constants) -> Fact:
        fake, fact, average = tensor_of(node), constants.fact(tensor_inputs(node)[0]), _AVERAGES.get(node.target)
        assert fake is not None
        if average is None or not bool(fact.const.any()):
            return _unknown_value(node, constants)
        dims = list(dims_of(node))
        keepdim = len(shape_of(node)) == fact.const.dim()
        value = average(fact.value.to(fake.dtype), dims, keepdim=keepdim)
        const = fact.const.to(torch.uint8).amin(dims, keepdim=keepdim).bool()
        return make_fact(const.expand(fact_shape(node)), value.expand(fact_shape(node)))

    return Rule(name, constant, live, ties, tabular=True)


def mixing_rule(name: str, dims_of: Dims, parameters_from: int | None = None, tabular: bool = False) -> Rule:
    """The result has the input's shape, and every entry along the mixed dims depends on all of them.

    ``parameters_from``: position of the affine parameters, tied to the mixed dims.
    """

    def affine(node: fx.Node) -> list[fx.Node]:
        if parameters_from is None:
            return []
        return [a for a in node.args[parameters_from : parameters_from + 2] if isinstance(a, fx.Node)]

    def constant(node: fx.Node, constants: Constants) -> Fact:
        given = [*node.args, None, None] if parameters_from is not None else []
        weight = given[parameters_from] if parameters_from is not None else None
        fake, shape = tensor_of(node), fact_shape(node)
        assert fake is not None
        if not isinstance(weight, fx.Node):
            return nothing_constant(shape, fake.dtype)
        dead = constants.fact(weight).zero
        assert parameters_from is not None
        bias = given[parameters_from + 1]
        value = constants.fact(bias).value if isinstance(bias, fx.Node) else torch.zeros((), dtype=fake.dtype)
        return make_fact(dead.expand(shape), value.expand(shape))

    def live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
        source = tensor_inputs(node)[0]
        return {source: any_over(live_out, dims_of(node)).expand(fact_shape(source))}

    def ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
        source, dims = tensor_inputs(node)[0], list(dims_of(node))
        for d in range(len(shape_of(node))):
            ties.same(ties.axis(source, d), ties.axis(node, d))
        ties.pin(source, dims, f"normalised by {name}")
        for parameter in affine(node):
            rank = len(shape_of(parameter))
            for d in range(rank):
                ties.same(ties.axis(parameter, d), ties.axis(node, dims[len(dims) - rank + d]))

    return Rule(name, constant, live, ties, tabular)


def trailing_dims(node: fx.Node) -> Sequence[int]:
    """The dims of layer_norm's and rms_norm's normalized_shape."""
    given = node.args[1]
    assert isinstance(given, list | tuple)
    rank = len(shape_of(node))
    return range(rank - len(given), rank)


def one_dim(node: fx.Node) -> Sequence[int]:
    """The single dim of softmax, cumsum and the like."""
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return [dim % len(shape_of(node))]


def all_but_batch(node: fx.Node) -> Sequence[int]:
    """Group norms mix channels and positions alike."""
    return range(1, len(shape_of(node)))


REDUCTION = reduction_rule("a reduction", dims_argument)
VECTOR_NORM = reduction_rule("a vector norm", norm_dims_argument)
SOFTMAX = mixing_rule("softmax", one_dim)
CUMULATIVE = mixing_rule("a cumulative sum", one_dim, tabular=True)
LAYER_NORM = mixing_rule("layer_norm", trailing_dims, parameters_from=2)
RMS_NORM = mixing_rule("rms_norm", trailing_dims, parameters_from=2)
GROUP_NORM = mixing_rule("group_norm", all_but_batch)


def _batch_norm_constant(node: fx.Node, constants: Constants) -> Fact:
    """In eval mode an affine function of each channel, dim 1: constant where the channel is."""
    source, weight, bias, mean, variance, training = node.args[:6]
    assert isinstance(source, fx.Node)
    x = constants.fact(source)
    if training or not bool(x.const.any()):
        return _unknown_value(node, constants)
    const = x.const

    def channels(given: Any, default: float) -> torch.Tensor:
        nonlocal const
        if not isinstance(given, fx.Node):
            return torch.tensor(default, dtype=torch.float64)
        fact, shape = constants.fact(given), [1, -1, *[1] * (x.const.dim() - 2)]
        const = const & fact.const.reshape(shape)
        return fact.value.double().reshape(shape)

    scale = channels(weight, 1.0) * (channels(variance, 1.0) + float(node.args[7])).rsqrt()  # type: ignore[arg-type]
    value = (x.value.double() - channels(mean, 0.0)) * scale + channels(bias, 0.0)
    return make_fact(const, value.to(x.value.dtype))


def _batch_norm_live(node: fx.Node, live_out: torch.Tensor, constants: Constants) -> Live:
    return {tensor_inputs(node)[0]: live_out}


def _batch_norm_ties(node: fx.Node, ties: Ties, constants: Constants) -> None:
    source = tensor_inputs(node)[0]
    for d in range(len(shape_of(node))):
        ties.same(ties.axis(source, d), ties.axis(node, d))
    for parameter in tensor_inputs(node)[1:]:
        ties.same(ties.axis(parameter, 0), ties.axis(node, 1))


BATCH_NORM = Rule("batch_norm (eval)", _batch_norm_constant, _batch_norm_live, _batch_norm_ties)
