"""Axes and channel facts: what the analyses say of a value.

A dimension of a traced value is a *data* dimension when its size is symbolic (batch, sequence: it comes from the
inputs) and a *channel* dimension when it is a plain integer. A *fact* about a value is a tensor of the value's rank in
which every data dimension has size 1: what it says of a channel holds at every data index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from torch import fx

from passes.ir.sizes import is_parameter, is_static, shape_of
from passes.ir.tensors import pieces


class Axis(NamedTuple):
    """One channel dimension of one value. Parameters are named "@<parameter>", virtual axes "#<number>"."""

    value: str
    dim: int

    def __str__(self) -> str:
        return f"{self.value}[{self.dim}]"


@dataclass(frozen=True)
class Fact:
    """Constant channels of a value: ``const`` (bool) and ``value``, both of the value's fact shape.

    Where ``const`` holds, the channel has the number ``value`` at every data index. A NaN value means "constant, but
    the number was not read" (planning without weights). Where it does not hold, ``value`` is 0.
    """

    const: torch.Tensor
    value: torch.Tensor

    @property
    def zero(self) -> torch.Tensor:
        """Channels that are constant 0."""
        return self.const & (self.value == 0)


def fact_shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a fact about the value: data dims have size 1."""
    return tuple(s if is_static(s) else 1 for s in shape_of(node))


def value_name(node: fx.Node) -> str:
    """The name axes use: one name per parameter, however many get_attr nodes read it."""
    return f"@{node.target}" if is_parameter(node) else node.name


def axis(node: fx.Node, dim: int) -> Axis | None:
    """The axis of a channel dim; None for data dims and dims of size 1, which never shrink."""
    shape = shape_of(node)
    if not shape:
        return None
    dim %= len(shape)
    return Axis(value_name(node), dim) if is_static(shape[dim]) and shape[dim] != 1 else None


def everything(node: fx.Node) -> torch.Tensor:
    """True for every channel of a value, without allocating it."""
    return torch.ones((), dtype=torch.bool).expand(fact_shape(node))


def nothing(node: fx.Node) -> torch.Tensor:
    """False for every channel of a value, without allocating it."""
    return torch.zeros((), dtype=torch.bool).expand(fact_shape(node))


def nothing_constant(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Fact:
    """The conservative fact, without allocating it."""
    return Fact(
        torch.zeros((), dtype=torch.bool).expand(tuple(shape)), torch.zeros((), dtype=dtype).expand(tuple(shape))
    )


def make_fact(const: torch.Tensor, value: torch.Tensor) -> Fact:
    """A Fact with the value cleared where it is not constant; nothing is stored for all-false facts."""
    const = const.expand(value.shape)
    if not bool(const.any()):
        return nothing_constant(value.shape, value.dtype)
    return Fact(const, torch.where(const, value, torch.zeros((), dtype=value.dtype)))


def collapse_fact(fact: Fact, dims: Iterable[int]) -> Fact:
    """The fact with ``dims`` reduced to size 1: constant where every entry along them is the same constant."""
    dims = [d for d in dims if fact.const.shape[d] != 1]
    if not dims:
        return fact
    const = fact.const.all(dims[0], keepdim=True)
    for d in dims[1:]:
        const = const.all(d, keepdim=True)
    low, high = fact.value, fact.value
    for d in dims:
        low, high = low.amin(d, keepdim=True), high.amax(d, keepdim=True)
    return make_fact(const & (low == high), low)


def some(pattern: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
    """``pattern.any(dim)`` of bools; a maximum of bytes is some tens of times as fast in torch."""
    if pattern.numel() == 0:
        return pattern.any(dim, keepdim=keepdim)
    if pattern.stride(dim) == 0:  # expanded: one entry stands for all
        return pattern.narrow(dim, 0, 1) if keepdim else pattern.select(dim, 0)
    return pattern.view(torch.uint8).amax(dim, keepdim=keepdim).view(torch.bool)


class Factors(NamedTuple):
    """A pattern of a matrix that is every entry where ``rows`` and ``columns`` (bool) cross, but for a few ``holes``
    (flat indices)."""

    rows: torch.Tensor
    columns: torch.Tensor
    holes: torch.Tensor


_HOLES = 2**-10  # of all entries: random weights in half precision hold a zero here and there


def factors_of(shape: Sequence[int], read: Callable[[slice], torch.Tensor]) -> Factors | None:
    """A pattern in the memory of a row and a column; None for one that is not made so. ``read``: some of its rows."""
    if len(shape) != 2 or 0 in shape:
        return None
    rows, columns = torch.zeros(shape[0], dtype=torch.bool), torch.zeros(shape[1], dtype=torch.bool)
    ranges = list(pieces(torch.empty((), dtype=torch.bool).expand(tuple(shape))))
    counts = []
    for part in ranges:
        pattern = read(part)
        rows[part] = some(pattern, 1)
        columns |= some(pattern, 0)
        counts.append(int(numpy.count_nonzero(pattern.numpy())))  # some times as fast as torch's
    width = int(columns.sum())
    lacking = [int(rows[part].sum()) * width - count for part, count in zip(ranges, counts, strict=True)]
    if sum(lacking) > _HOLES * len(rows) * len(columns):
        return None
    whole = Factors(rows, columns, torch.empty(0, dtype=torch.long))
    found = [
        (outer(whole._replace(rows=rows[part])) & ~read(part)).flatten().nonzero().flatten() + part.start * len(columns)
        for part, count in zip(ranges, lacking, strict=True)
        if count
    ]
    return whole._replace(holes=torch.cat(found)) if found else whole


def outer(factors: Factors) -> torch.Tensor:
    """The pattern of `factors_of`, without allocating it where there are no holes and one of the factors is all."""
    rows, columns, holes = factors
    shape = (len(rows), len(columns))
    if not len(holes) and bool(columns.all()):
        return rows[:, None].expand(shape)
    if not len(holes) and bool(rows.all()):
        return columns.expand(shape)
    pattern = torch.empty(shape, dtype=torch.bool)  # bytes are multiplied some times as fast as bools
    torch.mul(rows.view(torch.uint8)[:, None], columns.view(torch.uint8), out=pattern.view(torch.uint8))
    pattern.view(-1)[holes] = False
    return pattern


def any_over(live: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
    """Logical or over ``dims``, keeping them at size 1."""
    for d in dims:
        if live.shape[d] != 1:
            live = some(live, d, keepdim=True)
    return live


def reduce_to(live: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Undo broadcasting: logical or over the dims along which ``shape`` was expanded."""
    extra = live.dim() - len(shape)
    for _ in range(extra):
        live = some(live, 0)
    return any_over(live, [d for d, size in enumerate(shape) if size == 1])


def as_rows(t: torch.Tensor) -> torch.Tensor:
    """(..., size) -> (rows, size), also for vectors and where there are no entries."""
    return t.reshape(t.shape[:-1].numel(), t.shape[-1])


def along(live: torch.Tensor, dim: int) -> torch.Tensor:
    """Per-index summary of a fact along one dim, shape (size,): true where any entry is."""
    return any_over(live, [d for d in range(live.dim()) if d != dim % live.dim()]).reshape(-1)
