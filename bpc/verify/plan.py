"""A plan read and carried out a second time, in a few lines of its own: what every small tensor has to be.

small = cut(masked)                                for most
small = cut(masked + sum_j W[:, j] c_j)            for a bias that constant channels j were folded into
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Difference(Exception):
    """Something is not as the certificate says; the message names it."""


class Cut(NamedTuple):
    shape: tuple[int, ...]
    keep: Mapping[int, Tensor]
    cleared: Tensor
    cleared_dim: int


class Fold(NamedTuple):
    weight: str
    bias: str
    in_dim: int
    columns: Tensor
    constants: Tensor


@dataclass(frozen=True)
class Plan:
    """``cuts`` by parameter; ``aliases``: {name: the name that cuts and folds use}."""

    cuts: Mapping[str, Cut]
    folds: Sequence[Fold]
    aliases: Mapping[str, str]

    @staticmethod
    def read(data: Mapping[str, Any]) -> Plan:
        """Raises `Difference` for entries that are missing, of another kind, or out of their bounds."""
        try:
            cuts = {cut["parameter"]: _cut(cut) for cut in data["cuts"]}
            return Plan(cuts, [_fold(fold) for fold in data["folds"]], dict(data["aliases"]))
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise Difference(f"the plan cannot be read: {type(error).__name__}: {error}") from error

    def small(self, name: str, masked: Mapping[str, Tensor], constants: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the small model's tensor ``name`` has to hold, and in which size its terms were added up.

        ``constants``: those of each fold. Both are of the small shape; floating tensors come in float64. The second is
        all zero where nothing was folded in: there the first is exact. Raises `Difference`.
        """
        own = self.aliases.get(name, name)
        value, terms = masked.get(name), None
        if value is not None and value.is_floating_point():
            value = value.double()
        for fold, numbers in zip(self.folds, constants, strict=True):
            if fold.weight == own and value is not None:
                value = value.index_fill(fold.in_dim, fold.columns, 0)
            if fold.bias == own:
                taken = masked[fold.weight].double().index_select(fold.in_dim, fold.columns)
                rows = taken if fold.in_dim == 1 else taken.t()
                value = rows.new_zeros(len(rows)) if value is None else value
                terms = (value.abs() if terms is None else terms) + rows.abs() @ numbers.abs()
                value = value + rows @ numbers
        if value is None:
            raise Difference(f"the small model has {name}, which neither the masked one nor the plan has")
        return self._cut(own, value), self._cut(own, torch.zeros_like(value) if terms is None else terms)

    def gone(self, name: str, masked: Tensor) -> Tensor:
        """Which entries of the masked tensor ``name`` the small model does not have, bool of its shape."""
        own = self.aliases.get(name, name)
        numbers = torch.arange(1, masked.numel() + 1).reshape(masked.shape)
        for fold in self.folds:
            if fold.weight == own:
                numbers = numbers.index_fill(fold.in_dim, fold.columns, 0)
        left = self._cut(own, numbers).flatten()  # 0 where something was cleared
        return torch.ones(masked.numel() + 1, dtype=torch.bool).index_fill(0, left, False)[1:].reshape(masked.shape)

    def _cut(self, own: str, value: Tensor) -> Tensor:
        cut = self.cuts.get(own)
        if cut is None:
            return value
        if tuple(value.shape) != cut.shape:
            raise Difference(f"the plan cuts {own} from {cut.shape}; the masked model has {tuple(value.shape)}")
        value = value.index_fill(cut.cleared_dim, cut.cleared, 0)
        for dim, keep in cut.keep.items():
            value = value.index_select(dim, keep)
        return value


def _cut(data: Mapping[str, Any]) -> Cut:
    name, shape, dim = data["parameter"], tuple(int(size) for size in data["shape"]), int(data["cleared_dim"])
    keep = {int(d): _indices(name, kept, shape[int(d)]) for d, kept in data["keep"].items()}
    return Cut(shape, keep, _indices(name, data["cleared"], shape[dim]), dim)


def _fold(data: Mapping[str, Any]) -> Fold:
    name, columns = data["weight"], _indices(data["weight"], data["columns"], None)
    constants = torch.tensor(data["constants"], dtype=torch.float64)
    if constants.shape != columns.shape:
        raise ValueError(f"the fold of {name} has {len(columns)} columns and {len(constants)} constants")
    return Fold(name, data["bias"], int(_indices(name, [data["in_dim"]], 2)), columns, constants)


def _indices(name: str, given: Sequence[int], size: int | None) -> Tensor:
    """As a tensor. Raises ValueError where they are no whole numbers, do not ascend, or leave [0, size)."""
    index = torch.tensor(given if all(type(n) is int for n in given) else [-1], dtype=torch.long)  # not true, nor 1.5
    ascending = bool((index.diff() > 0).all()) and (not len(index) or int(index[0]) >= 0)
    if not ascending or (size is not None and len(index) and int(index[-1]) >= size):
        raise ValueError(f"indices of {name} do not ascend within its size")
    return index
