"""The plan as data: what is cut where and what is folded into what. It serialises to JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self

import torch

Masks = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Fold:
    """Input channels of a weight that hold constants, and the bias that absorbs them."""

    weight: str
    bias: str
    new_bias: bool  # the layer had none
    in_dim: int  # weight dim of the input features
    columns: tuple[int, ...]
    constants: tuple[float, ...]


@dataclass(frozen=True)
class Cut:
    """Indices that stay along each shrunk dim of one parameter, and output rows cleared because nothing reads them."""

    parameter: str
    shape: tuple[int, ...]
    keep: Mapping[int, tuple[int, ...]]
    cleared: tuple[int, ...] = ()  # positions along `cleared_dim`, counted before the cut
    cleared_dim: int = 0


@dataclass(frozen=True)
class HeadView:
    """A parameter dim that the forward views as (heads, dims), before and after the cut."""

    parameter: str
    dim: int
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True)
class PlanData:
    """Everything the rewrite did to parameters. ``cuts`` and ``folds`` refer to the names of the traced model.

    ``attributes`` are the Python numbers (head counts and the like) of the user's own modules that had to follow:
    {module path: {attribute: number}}; None where they have not been looked for.
    """

    cuts: tuple[Cut, ...] = ()
    folds: tuple[Fold, ...] = ()
    constants: tuple[str, ...] = ()  # values of the graph that became constants
    heads: tuple[HeadView, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)  # tied parameter names
    attributes: Mapping[str, Mapping[str, int]] | None = None

    def data(self) -> PlanData:
        """The data alone, without what a subclass adds."""
        return PlanData(**{f.name: getattr(self, f.name) for f in fields(PlanData)})

    def to_json(self) -> str:
        return json.dumps(self.plain(), indent=1)

    def plain(self) -> dict[str, Any]:
        """What `to_json` writes, as dicts, lists and numbers."""
        return {"format": 1, **{f.name: _plain(getattr(self, f.name)) for f in fields(PlanData)}}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a plan back. Raises ValueError for text that is no plan of this version."""
        try:
            data: dict[str, Any] = json.loads(text)
            if data.pop("format") != 1:
                raise ValueError("unknown format version")
            cuts = tuple(
                Cut(
                    c["parameter"],
                    tuple(c["shape"]),
                    {int(d): tuple(k) for d, k in c["keep"].items()},
                    tuple(c["cleared"]),
                    c["cleared_dim"],
                )
                for c in data["cuts"]
            )
            folds = tuple(
                Fold(**{**f, "columns": tuple(f["columns"]), "constants": tuple(f["constants"])}) for f in data["folds"]
            )
            heads = tuple(
                HeadView(h["parameter"], h["dim"], tuple(h["before"]), tuple(h["after"])) for h in data["heads"]
            )
            return cls(cuts, folds, tuple(data["constants"]), heads, dict(data["aliases"]), data["attributes"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a shrink plan: {error}") from error

    def small_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape a parameter has after the cut."""
        cut = next((c for c in self.cuts if c.parameter == name), None)
        if cut is None:
            return shape
        return tuple(len(cut.keep[d]) if d in cut.keep else s for d, s in enumerate(shape))


def cut_tensor(tensor: torch.Tensor, cut: Cut) -> torch.Tensor:
    """A parameter after its cut: cleared rows zeroed, dropped indices gone. Always a new tensor."""
    if cut.cleared:
        tensor = tensor.clone().index_fill_(cut.cleared_dim, torch.tensor(cut.cleared, device=tensor.device), 0)
    for dim, keep in cut.keep.items():
        tensor = tensor.index_select(dim, torch.tensor(keep, dtype=torch.long, device=tensor.device))
    return tensor


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        numbers = not value or isinstance(value[0], int | float)  # thousands of indices: nothing to go into
        return list(value) if numbers else [_plain(entry) for entry in value]
    return value
