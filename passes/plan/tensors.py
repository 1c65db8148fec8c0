"""What a plan does to tensors, one tensor at a time: the one place where masks, folds and cuts become numbers.

    mask     W  ->  W where the mask is True, 0 elsewhere
    fold     b  ->  b + sum_j W[:, j] c_j,   W[:, j]  ->  0
    clear    rows that nothing reads  ->  0
    cut      W  ->  W[kept, kept]

A small tensor depends on few of the large ones: its own and, for a bias, the weights whose constants it absorbs. So
the weights may come from anywhere, a module in memory or the shards of a checkpoint, and need not be there together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch

from passes.ir.tensors import masked, without_copies
from passes.plan.data import Fold, Masks, PlanData, select
from passes.plan.errors import ModuleViewError


class SmallTensors(Mapping[str, torch.Tensor]):
    """The tensors that a plan changes, by the names of the traced model, each computed when it is asked for.

    Args:
        weights: the large tensors by name, without masks, read when they are needed and not kept.
        masks: {name: bool tensor}, True where an entry is kept, read in the same way.
        biases: which of the biases that the plan may add (`Fold.new_bias`) there are; default: those that are not all
            zero, which are computed to find out. Give it where ``weights`` are on the meta device.

    Raises `ModuleViewError` for weights that are not there or have other shapes than the plan was made for.
    """

    def __init__(
        self,
        plan: PlanData,
        weights: Mapping[str, torch.Tensor],
        masks: Masks,
        biases: Collection[str] | None = None,
    ) -> None:
        self._weights = weights
        self._masks = {plan.aliases.get(name, name): name for name in masks}
        self._given = masks
        self._cuts = {cut.parameter: cut for cut in plan.cuts}
        self._into: dict[str, list[Fold]] = {}  # by bias
        self._out_of: dict[str, list[Fold]] = {}  # by weight
        for fold in plan.folds:
            self._into.setdefault(fold.bias, []).append(fold)
            self._out_of.setdefault(fold.weight, []).append(fold)
        added = {fold.bias for fold in plan.folds if fold.new_bias}
        for name in (*self._masks, *self._out_of, *(name for name in self._into if name not in added)):
            if name not in weights:
                raise ModuleViewError(f"there is no {name!r}, which the plan changes")
        self.biases = frozenset(
            name for name in added if (name in biases if biases is not None else bool((self._bias(name) != 0).any()))
        )
        kept = (n for n in (*self._masks, *self._out_of, *self._into, *self._cuts) if n in weights or n in self.biases)
        self._names = dict.fromkeys(kept)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # by default a Mapping computes the tensor to find out

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        cut, cleared = self._cuts.get(name), [(fold.in_dim, fold.columns) for fold in self._out_of.get(name, ())]
        tensor = self._bias(name) if name in self._into else self._weights[name].detach()
        for fold in self._out_of.get(name, ()):
            _check_columns(fold, tensor)
        if cut is not None and tuple(tensor.shape) != cut.shape:
            raise ModuleViewError(f"{name} has shape {tuple(tensor.shape)}; the plan was made for {cut.shape}")
        keep = {} if cut is None else cut.keep
        small = select(tensor, keep, cleared if cut is None else [*cleared, (cut.cleared_dim, cut.cleared)])
        mask = None if name in self._into else self._mask(name)
        if mask is None:
            return small
        mask = without_copies(mask)
        kept = select(mask, {d: k for d, k in keep.items() if mask.shape[d] > 1})  # what goes needs no mask
        return small if not kept.is_meta and bool(kept.all()) else masked(small, kept.expand(small.shape))

    def _mask(self, name: str) -> torch.Tensor | None:
        given = self._masks.get(name)
        return None if given is None else self._given[given]

    def _masked(self, name: str) -> torch.Tensor:
        tensor, mask = self._weights[name].detach(), self._mask(name)
        return tensor if mask is None else masked(tensor, mask)

    def _bias(self, name: str) -> torch.Tensor:
        """A bias at its full length, with the constants that were folded into it."""
        folds = self._into[name]
        bias = self._masked(name) if name in self._weights else None
        for fold in folds:
            shift, dtype = self._shift(fold)
            if bias is None:
                bias = shift.to(dtype)
            elif bias.shape != shift.shape:
                sizes = f"{tuple(bias.shape)}, and {fold.weight} gives {tuple(shift.shape)}"
                raise ModuleViewError(f"{name} has shape {sizes}: the plan folds one into the other")
            else:
                bias = (bias.double() + shift).to(dtype)
        assert bias is not None
        return bias

    def _shift(self, fold: Fold) -> tuple[torch.Tensor, torch.dtype]:
        """What the constants of one fold add up to, in float64, and the weight's dtype."""
        weight, mask = self._weights[fold.weight].detach(), self._mask(fold.weight)
        _check_columns(fold, weight)
        taken = _take(weight, fold.in_dim, fold.columns)
        if mask is not None:
            taken = masked(taken, _take(mask, fold.in_dim, fold.columns))
        numbers = torch.tensor(fold.constants, dtype=torch.float64, device=weight.device)
        wide = taken.double()
        return (wide @ numbers if fold.in_dim == 1 else numbers @ wide), weight.dtype


def _check_columns(fold: Fold, weight: torch.Tensor) -> None:
    if weight.dim() != 2 or any(column >= weight.shape[fold.in_dim] for column in fold.columns):
        raise ModuleViewError(f"{fold.weight} has shape {tuple(weight.shape)}, which lacks columns that the plan folds")


def _take(tensor: torch.Tensor, dim: int, indices: tuple[int, ...]) -> torch.Tensor:
    return select(tensor, {dim: indices})
