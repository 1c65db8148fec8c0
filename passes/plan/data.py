"""The plan as data: what is cut where and what is folded into what. It serialises to JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Self, TypeAlias

import torch
from pydantic import ConfigDict, Field, TypeAdapter

from passes.ir.tensors import taken
from passes.plan.errors import PlanError
from passes.strict import as_schema, parse_json, short

Masks = Mapping[str, torch.Tensor]

_LARGEST = 2**40  # no dim is longer
_Size: TypeAlias = Annotated[int, Field(ge=0, le=_LARGEST)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Fold:
    """Input channels of a weight that hold constants, and the bias that absorbs them."""

    weight: str
    bias: str
    new_bias: bool  # the layer had none
    in_dim: Annotated[int, Field(ge=0, le=1)]  # weight dim of the input features
    columns: tuple[_Size, ...]
    constants: tuple[float, ...]
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


def merge_folds(folds: Iterable[Fold]) -> tuple[Fold, ...]:
    """One fold per weight: columns that folded later join those of the weight's first fold. No column folds twice."""
    merged: dict[str, Fold] = {}
    for fold in folds:
        first = merged.setdefault(fold.weight, fold)
        if first is not fold:
            pairs = sorted(
                zip(first.columns + fold.columns, first.constants + fold.constants, strict=True), key=itemgetter(0)
            )
            columns, constants = zip(*pairs, strict=True)
            merged[fold.weight] = replace(first, columns=columns, constants=constants)
    return tuple(merged.values())


@dataclass(frozen=True)
class Cut:
    """Indices that stay along each shrunk dim of one parameter, and output rows cleared because nothing reads them."""

    parameter: str
    shape: tuple[_Size, ...]
    keep: Mapping[int, tuple[_Size, ...]]
    cleared: tuple[_Size, ...] = ()  # positions along `cleared_dim`, counted before the cut
    cleared_dim: int = 0
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class HeadView:
    """A parameter dim that the forward views as (heads, dims), before and after the cut."""

    parameter: str
    dim: int
    before: tuple[_Size, _Size]
    after: tuple[_Size, _Size]
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class Spread:
    """A dim of a linear layer's weight that is longer where the forward sees it: ``size``, zeros outside ``places``.

    See `passes.ir.compact`.
    """

    weight: str
    dim: Annotated[int, Field(ge=0, le=1)]
    size: _Size
    places: tuple[_Size, ...]
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True, repr=False)
class PlanData:
    """Everything the rewrite did to parameters. ``cuts`` and ``folds`` refer to the names of the traced model.

    ``attributes`` are the Python numbers (head counts and the like) of the user's own modules that had to follow:
    {module path: {attribute: number}}; None where they have not been looked for. ``spreads``: what of a module's linear
    layers its forward sees with zeros between; a graph has none.
    """

    cuts: tuple[Cut, ...] = ()
    folds: tuple[Fold, ...] = ()
    constants: tuple[str, ...] = ()  # values of the graph that became constants
    heads: tuple[HeadView, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)  # tied parameter names
    attributes: Mapping[str, Mapping[str, Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]]] | None = None
    spreads: tuple[Spread, ...] = ()
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __repr__(self) -> str:
        counts = {"cuts": self.cuts, "folds": self.folds, "constants": self.constants}
        return f"{type(self).__name__}({', '.join(f'{len(found):,} {name}' for name, found in counts.items())})"

    def data(self) -> PlanData:
        """The data alone, without what a subclass adds."""
        return PlanData(**{f.name: getattr(self, f.name) for f in fields(PlanData)})

    def to_json(self) -> str:
        return json.dumps(self.plain(), indent=1)

    def plain(self) -> dict[str, Any]:
        """What `to_json` writes, as dicts, lists and numbers."""
        entries = {f.name: _plain(getattr(self, f.name)) for f in fields(PlanData)}
        if not self.spreads:  # most plans have none, and earlier versions know of none
            del entries["spreads"]
        return {"format": 1, **entries}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a plan back. Raises `PlanError` for text that is no plan of this version."""
        try:
            data = parse_json(text)
            if not isinstance(data, dict) or data.pop("format", None) != 1:
                raise ValueError("unknown format version")
            names = [f.name for f in fields(PlanData)]
            if missing := [name for name in names if name not in data and name != "spreads"]:
                raise ValueError(f"{missing[0]}: missing")
            plan = as_schema(_SCHEMA, data)
            _check_bounds(plan)
        except ValueError as error:
            raise PlanError(f"not a shrink plan: {error}") from None
        return cls(*(getattr(plan, name) for name in names))

    def small_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape a parameter has after the cut."""
        cut = next((c for c in self.cuts if c.parameter == name), None)
        if cut is None:
            return shape
        return tuple(len(cut.keep[d]) if d in cut.keep else s for d, s in enumerate(shape))


_SCHEMA = TypeAdapter(PlanData)


def _check_bounds(plan: PlanData) -> None:
    """Raises ValueError for dims and indices that are not there, or not in order."""
    seen = set[str]()
    for number, cut in enumerate(plan.cuts):
        where = f"cuts[{number}]"
        if cut.parameter in seen:
            raise ValueError(f"{where}.parameter: {short(cut.parameter)} is cut twice")
        seen.add(cut.parameter)
        kept: list[tuple[str, int, tuple[int, ...]]] = [(f"keep.{d}", d, indices) for d, indices in cut.keep.items()]
        for key, dim, indices in [*kept, ("cleared", cut.cleared_dim, cut.cleared)]:
            if key != "cleared" or indices or dim:  # a number has no dim 0, and nothing cleared
                if not 0 <= dim < len(cut.shape):
                    raise ValueError(f"{where}.{key}: shape {cut.shape} has no dim {dim}")
                _check_indices(f"{where}.{key}", indices, cut.shape[dim])
    for number, fold in enumerate(plan.folds):
        _check_indices(f"folds[{number}].columns", fold.columns, _LARGEST + 1)
        if len(fold.columns) != len(fold.constants):
            given = f"{len(fold.columns)} columns and {len(fold.constants)} constants"
            raise ValueError(f"folds[{number}]: {given}; there has to be one for each")
    lengths = {(cut.parameter, d): (cut.shape[d], len(kept)) for cut in plan.cuts for d, kept in cut.keep.items()}
    for number, spread in enumerate(plan.spreads):
        length, held = lengths.get((spread.weight, spread.dim), (0, -1))
        if len(spread.places) != held or spread.size > length:
            raise ValueError(f"spreads[{number}]: its places are not those of a cut of {short(spread.weight)}")
        _check_indices(f"spreads[{number}].places", spread.places, spread.size)


def _check_indices(where: str, indices: tuple[int, ...], size: int) -> None:
    if any(a >= b for a, b in pairwise((-1, *indices, size))):
        raise ValueError(f"{where}: indices do not ascend from 0 to below {size}")


def cut_tensor(tensor: torch.Tensor, cut: Cut) -> torch.Tensor:
    """A parameter after its cut: cleared rows zeroed, dropped indices gone. Always a new tensor."""
    small = select(tensor, cut.keep, [(cut.cleared_dim, cut.cleared)])
    return small.clone() if small is tensor else small


def select(
    tensor: torch.Tensor,
    keep: Mapping[int, tuple[int, ...]],
    cleared: Iterable[tuple[int, tuple[int, ...]]] = (),
) -> torch.Tensor:
    """The indices ``keep`` of each dim, those ``cleared`` (dim, indices before the cut) zero; else the same tensor."""
    small = tensor
    for dim, kept in keep.items():
        small = taken(small, dim, kept)
    for dim, indices in cleared:
        place = {index: position for position, index in enumerate(keep.get(dim, range(tensor.shape[dim])))}
        if left := [place[index] for index in indices if index in place]:
            small = small.index_fill(dim, torch.tensor(left, device=tensor.device), 0)
    return small


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        numbers = not value or isinstance(value[0], int | float)  # thousands of indices: nothing to go into
        return list(value) if numbers else [_plain(entry) for entry in value]
    return value
