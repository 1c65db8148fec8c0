"""Masks that are read once where they are whole rows and columns, as most are: two vectors are kept of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from passes.ops.facts import Factors, factors_of, outer


class FactoredMasks(Mapping[str, torch.Tensor]):
    """Masks by name; those that do not come apart into rows and columns are read whenever they are asked for."""

    def __init__(self, masks: Mapping[str, torch.Tensor]) -> None:
        self._masks = masks
        self._known: dict[str, Factors | None] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._known:
            mask = self._masks[name]
            self._known[name] = factors_of(mask.shape, mask.__getitem__)
            if self._known[name] is None:
                return mask
        factors = self._known[name]
        return self._masks[name] if factors is None else outer(factors)

    def __contains__(self, name: object) -> bool:
        return name in self._masks

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)
