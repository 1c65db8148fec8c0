"""Structural operators: they move entries and compute nothing.

Each operator is given once, as a function that moves a fact tensor (`Move`). The constant fact is moved by it, the live
fact is pulled back by its adjoint (the vector-Jacobian product of the same function), so the two cannot disagree.
``collapse`` says what happens to channel entries that end up in one data dimension. The operators themselves are in
`views` (reshape, permute, expand), `pieces` (slice, select, cat, flip, roll, repeat) and `windows` (unfold).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from passes.ir.sizes import tensor_inputs, tensor_of
from passes.ops.arguments import first_argument
from passes.ops.facts import Fact, everything, fact_shape, make_fact, nothing, nothing_constant
from passes.ops.rule import Facts, Keeps, Kind, Live, Rule
from passes.ops.ties import Ties

Collapse = Callable[[torch.Tensor, int], torch.Tensor]  # (fact, dim) -> the dim has size 1
Move = Callable[[fx.Node, Sequence[torch.Tensor], Collapse], torch.Tensor]


def _smallest(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.amin(dim, keepdim=True)


def _largest(t: torch.Tensor, dim: int) -> torch.Tensor:
    """A number that is not known (NaN) is taken to differ from the others: infinite here, NaN among the least."""
    if t.is_floating_point() and t.shape[dim] > 1:
        t = t.nan_to_num(torch.inf, torch.inf, -torch.inf)
    return t.amax(dim, keepdim=True)


def _sum(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.sum(dim, keepdim=True)


def only_first(node: fx.Node) -> list[fx.Node]:
    """The one value an operator moves; others among its inputs give sizes only."""
    return [first_argument(node)]


def structural_rule(
    name: str,
    move: Move,
    ties: Callable[[fx.Node, Ties, Facts], None],
    resize: Callable[[fx.Node, Keeps], None] | None = None,
    applies: Callable[[fx.Node], bool] | None = None,
    sources: Callable[[fx.Node], list[fx.Node]] = only_first,
    onto: bool = False,
) -> Rule:
    """The rule of an operator that only moves entries of ``sources(node)``; its other inputs are not read.

    ``onto``: every entry of the sources is one of the result's.
    """

    def constant(node: fx.Node, facts: Facts) -> Fact:
        fake, shape = tensor_of(node), fact_shape(node)
        assert fake is not None
        moved = [facts.fact(n) for n in sources(node)]
        if not any(bool(f.const.any()) for f in moved):
            return nothing_constant(shape, fake.dtype)
        const = move(node, [f.const for f in moved], _smallest)
        numbers = [f.value for f in moved]
        low, high = (move(node, numbers, how) for how in (_smallest, _largest))
        agree = (low == high) | (torch.isnan(low) & torch.isnan(high) if low.is_floating_point() else False)
        return make_fact((const & agree).expand(shape), low.to(fake.dtype).expand(shape))

    def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
        read = sources(node)
        result = {s: nothing(s) for s in tensor_inputs(node)}
        if onto and bool(live_out.all()):
            return result | {s: everything(s) for s in read}
        probes = tuple(torch.zeros(fact_shape(s)) for s in read)
        pull: Any = torch.func.vjp(lambda *ts: move(node, ts, _sum), *probes)[1]
        for source, gradient in zip(read, pull(live_out.to(torch.float32)), strict=True):
            result[source] = result[source] | (gradient > 0)
        return result

    return Rule(name, constant, live, ties, resize, Kind.VIEW, applies or (lambda node: True), tabular=True)


def tie_other_dims(node: fx.Node, source: fx.Node, dims: Sequence[int], ties: Ties) -> None:
    """Every dim but ``dims`` is the same in both, which have equal rank."""
    for d in range(len(fact_shape(source))):
        if d not in dims:
            ties.same(ties.axis(node, d), ties.axis(source, d))
