"""Linear layers that hold fewer features than a forward sees: weights as small as the graph's where a forward is not.

A forward may fix what pruning does not: one head size for q, k and v, one head count for layers that share a table. A
compact layer holds the rows and columns that are left, and shows the width that its model's forward asks for:

    y[..., rows]  =  x[..., columns] W^T + b,      y  =  0 in all other places

It stays an ``nn.Linear`` (or transformers' Conv1D) under its name. `expanded` and `expand` give plain layers back.

This text also goes into the file that a self-contained directory brings along (`bpc.hub.standalone`): it needs torch
and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

Held = Mapping[int, tuple[int, tuple[int, ...]]]  # {dim of the weight: (size that a forward sees, places in it)}


class CompactLayer(nn.Module):
    """What is added to the class of a linear layer; see `compact`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.__dict__["_columns"] is not None:
            x = x.index_select(-1, self._index("_columns", x))
        y: torch.Tensor = super().forward(x)
        if self.__dict__["_rows"] is not None:
            y = nn.functional.pad(y, (0, 1)).index_select(-1, self._index("_rows", y))  # the last one is 0
        return y

    def _index(self, name: str, like: torch.Tensor) -> torch.Tensor:
        index: torch.Tensor = self.__dict__[name]
        if index.device != like.device:
            index = index.to(like.device)
            if type(like) is torch.Tensor and not like.is_meta:  # not while something traces
                self.__dict__[name] = index
        return index

    def extra_repr(self) -> str:
        inherited, weight = super().extra_repr(), self.weight  # no parameter where something computes it
        return ", ".join([inherited] * bool(inherited) + [f"holds {tuple(weight.shape)}"])  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For copies and pickles: the class is made when it is needed, and has no name to be found by."""
        return _revive, (type(self).__mro__[2],), dict(self.__dict__)


@functools.cache
def _compact_class(kind: Any) -> Any:
    return type(f"Compact{kind.__name__}", (CompactLayer, kind), {"__module__": __name__})


def _revive(kind: Any) -> nn.Module:
    made = _compact_class(kind)
    revived: nn.Module = made.__new__(made)
    return revived


def output_dim(layer: nn.Module) -> int | None:
    """Which dim of a layer's weight its output features are; None for a layer that cannot be made compact."""
    if type(layer) is nn.Linear:
        return 0
    return 1 if {"nf", "nx"} <= layer.__dict__.keys() and "weight" in layer._parameters else None  # Conv1D


def compact(layer: nn.Module, held: Held) -> None:
    """Make a layer, whose weight and bias are small already, show the sizes ``held`` to the forward that calls it."""
    out_dim = output_dim(layer)
    weight = layer._parameters["weight"]
    if out_dim is None or weight is None:
        raise TypeError(f"{type(layer).__name__} cannot be made compact")
    rows = columns = None
    for dim, (size, places) in held.items():
        if len(places) != weight.shape[dim] or not all(0 <= place < size for place in places):
            raise ValueError(f"{len(places)} places of {size} do not fit dim {dim} of {tuple(weight.shape)}")
        if dim == out_dim:
            where = torch.full((size,), len(places), dtype=torch.long, device="cpu")
            where[torch.tensor(places, dtype=torch.long, device="cpu")] = torch.arange(len(places), device="cpu")
            rows = where
        else:
            columns = torch.tensor(places, dtype=torch.long, device="cpu")
        if out_dim == 1:
            layer.__dict__.update(nx=weight.shape[0], nf=weight.shape[1])
        else:
            setattr(layer, "out_features" if dim == out_dim else "in_features", size)
    kind: Any = type(layer)
    layer.__class__ = _compact_class(kind)
    layer.__dict__.update(_rows=rows, _columns=columns, held={int(d): (s, tuple(p)) for d, (s, p) in held.items()})


def compact_layers(model: nn.Module) -> dict[str, nn.Module]:
    """{path: layer} of a model's compact layers."""
    # By what they hold: a file beside a model's weights may have made them of its own copy of this text.
    return {path: layer for path, layer in model.named_modules() if {"held", "_rows"} <= layer.__dict__.keys()}


def held_by(layer: nn.Module) -> Held:
    """What `compact` was given."""
    found: Held = layer.__dict__["held"]
    return found


def expand(layer: nn.Module) -> None:
    """Make a compact layer the plain one that computes the same, in place: zeros where it holds nothing.

    Raises ValueError for one whose weight or bias something computes, as torch.nn.utils.prune and parametrizations do.
    """
    held, kind = held_by(layer), type(layer).__mro__[2]
    computed = [leaf for leaf in ("weight", "bias") if leaf not in layer._parameters]
    if computed:
        raise ValueError(
            f"the {computed[0]} of a {type(layer).__name__} is computed from other tensors, and cannot be laid out at "
            "full width: make it a parameter again first (torch.nn.utils.prune.remove, "
            "torch.nn.utils.parametrize.remove_parametrizations)"
        )
    layer.__class__ = kind
    for name in ("_rows", "_columns", "held"):
        del layer.__dict__[name]
    out_dim = output_dim(layer)
    for leaf in ("weight", "bias"):
        old = layer._parameters.get(leaf)
        if old is None:
            continue
        wide = old.detach()
        for dim, (size, places) in held.items():
            along = dim if leaf == "weight" else 0
            if leaf == "weight" or dim == out_dim:
                shape = (*wide.shape[:along], size, *wide.shape[along + 1 :])
                index = torch.tensor(places, dtype=torch.long, device=wide.device)
                wide = wide.new_zeros(shape).index_copy(along, index, wide)
        if wide.shape != old.shape:
            layer._parameters[leaf] = nn.Parameter(wide, requires_grad=old.requires_grad)
        if leaf == "weight" and out_dim == 1:
            layer.__dict__.update(nx=wide.shape[0], nf=wide.shape[1])


def runs(places: tuple[int, ...]) -> tuple[int, ...]:
    """Where runs of consecutive, ascending places begin and end: (0, 1, 2, 6, 7) are (0, 3, 6, 8)."""
    ends: list[int] = []
    for place in places:
        if ends and ends[-1] == place:
            ends[-1] = place + 1
        else:
            ends += [place, place + 1]
    return tuple(ends)


def from_runs(ends: tuple[int, ...], size: int) -> tuple[int, ...]:
    """What `runs` was given. Raises ValueError for ends that do not ascend up to ``size``."""
    if len(ends) % 2 or any(a >= b for a, b in itertools.pairwise((-1, *ends, size + 1))):
        raise ValueError(f"({', '.join(map(str, ends[:4]))}, …) are no ends of runs within {size}")
    return tuple(place for begin, end in zip(ends[::2], ends[1::2], strict=True) for place in range(begin, end))


@contextlib.contextmanager
def expanded(model: nn.Module) -> Iterator[None]:
    """Inside, a model's compact layers are plain ones: what is traced then has a rule for every operator."""
    layers = compact_layers(model)
    before = {path: (type(layer), dict(layer.__dict__), dict(layer._parameters)) for path, layer in layers.items()}
    try:
        for layer in layers.values():
            expand(layer)
        yield
    finally:
        for path, layer in layers.items():
            layer.__class__, attributes, parameters = before[path]
            layer.__dict__.update(attributes)
            layer._parameters.update(parameters)
