"""Sizes to try: other batches and lengths, within what the trace found out about them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence

import sympy
import torch
from torch import fx

from passes.ir.metadata import fake_mode
from passes.ir.sizes import tensor_of

Sizes = dict[sympy.Symbol, int]
_Wish = Callable[[int], list[int]]  # the example's size -> sizes to try, the best first

_TRIES = 512  # combinations looked at for one that the trace's conditions allow


def size_choices(placeholders: Sequence[fx.Node], tensors: Sequence[torch.Tensor]) -> list[list[Sizes]]:
    """For each trial the sizes to try, the best first: batch 1 and longer; a larger batch and shorter; the example's.

    ``placeholders`` and ``tensors`` are a graph's inputs and what the example gives for them. Without symbolic sizes
    there is one trial, of the example's sizes. Symbols of equal example size (ids and their mask) keep equal sizes;
    where a batch equals a length in the example, that they part is tried first, that they stay equal second.
    """
    hints, leading = _symbols(placeholders, tensors)
    if not hints:
        return [[{}]]
    apart: dict[sympy.Symbol, tuple[int, bool]] = {s: (n, s in leading) for s, n in hints.items()}
    leads = {n for s, n in hints.items() if s in leading}
    together: dict[sympy.Symbol, tuple[int, bool]] = {s: (n, n in leads) for s, n in hints.items()}
    allowed = _conditions(placeholders[0].graph, hints)
    trials: list[list[Sizes]] = []
    for batch, length in ((_one, _longer), (_larger, _shorter)):
        found = [_first_allowed(groups, batch, length, allowed) for groups in (apart, together)]
        choices = [c for i, c in enumerate(found) if c is not None and c != hints and c not in found[:i]]
        if choices:
            trials.append(choices)
    return [*trials, [hints]]


def shape_at(placeholder: fx.Node, sizes: Sizes) -> tuple[int, ...]:
    """The input's shape when its symbols have these sizes; others keep the trace's."""
    value = tensor_of(placeholder)
    assert value is not None
    known = {symbol: sympy.Integer(size) for symbol, size in sizes.items()}
    return tuple(
        int(s.node.expr.xreplace(known) if s.node.expr.free_symbols <= sizes.keys() else s.node.hint)
        if isinstance(s, torch.SymInt)
        else int(s)
        for s in value.shape
    )


def _one(n: int) -> list[int]:
    return [1, *_larger(n)]


def _larger(n: int) -> list[int]:
    return [*range(n + 1, n + 9), 2 * n, *range(n - 1, 0, -1), n]


def _longer(n: int) -> list[int]:
    return [n + 3, n + 2, n + 1, *range(n + 4, n + 9), 2 * n, *range(n - 1, 0, -1), n]


def _shorter(n: int) -> list[int]:
    first = n - 1 - n // 4
    return [*range(first, 1, -1), *range(first + 1, n), *range(n + 1, n + 9), 2 * n, 1, n]


def _first_allowed(
    groups: Mapping[sympy.Symbol, tuple[int, bool]], batch: _Wish, length: _Wish, allowed: Callable[[Sizes], bool]
) -> Sizes | None:
    keys = list(dict.fromkeys(groups.values()))
    wishes = [[size for size in (batch if leads else length)(n) if size > 0] for n, leads in keys]
    for sizes in itertools.islice(itertools.product(*wishes), _TRIES):
        chosen: dict[Hashable, int] = dict(zip(keys, sizes, strict=True))
        found = {symbol: chosen[key] for symbol, key in groups.items()}
        if allowed(found):
            return found
    return None


def _symbols(placeholders: Sequence[fx.Node], tensors: Sequence[torch.Tensor]) -> tuple[Sizes, set[sympy.Symbol]]:
    """The example's size of every symbol that an input shows, and the symbols of first dims."""
    hints: Sizes = {}
    leading: set[sympy.Symbol] = set()
    for node, tensor in zip(placeholders, tensors, strict=True):
        value = tensor_of(node)
        assert value is not None
        for dim, (size, actual) in enumerate(zip(value.shape, tensor.shape, strict=True)):
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                hints[size.node.expr] = actual
                leading |= {size.node.expr} if dim == 0 else set()
    return hints, leading


def _conditions(graph: fx.Graph, hints: Sizes) -> Callable[[Sizes], bool]:
    """Whether sizes are in the ranges and meet the conditions that the trace recorded.

    torch.export takes every size to be 2 or more, and notes that sizes are not 1; graphs that are right for 1 as well
    are the rule. A size of 1 counts as the example's.
    """
    env = fake_mode(graph).shape_env
    if env is None:
        return lambda sizes: True
    ranges = {s: env.var_to_range[s] for s in hints if s in env.var_to_range}
    guards = [g for guard in env.guards if (g := env.replace(guard.expr)).free_symbols <= hints.keys()]

    def allowed(sizes: Sizes) -> bool:
        known = {s: sympy.Integer(hints[s] if size == 1 else size) for s, size in sizes.items()}
        if any(not r.lower <= known[s] <= r.upper for s, r in ranges.items()):
            return False
        return all(guard.xreplace(known) != sympy.false for guard in guards)

    return allowed
