"""Masks of rows and columns are read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from bpc.streaming.masks import FactoredMasks


class Counted(Mapping[str, torch.Tensor]):
    """Masks that remember what was read."""

    def __init__(self, masks: dict[str, torch.Tensor]) -> None:
        self.masks, self.read = masks, list[str]()

    def __getitem__(self, name: str) -> torch.Tensor:
        self.read.append(name)
        return self.masks[name]

    def __contains__(self, name: object) -> bool:
        return name in self.masks

    def __iter__(self) -> Iterator[str]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)


def test_each_is_what_was_given_and_most_are_read_once() -> None:
    rows, columns = torch.tensor([True, False, True])[:, None], torch.tensor([True, True, False, True])
    crossing = {"rows": rows.expand(3, 4), "columns": columns.expand(3, 4), "both": rows & columns}
    given = Counted({**crossing, "entries": torch.eye(3).bool(), "bias": columns})
    masks = FactoredMasks(given)
    assert all(name in masks for name in given)
    assert not given.read
    for _ in range(3):
        for name, mask in given.masks.items():
            assert torch.equal(masks[name], mask), name
    counts = {name: given.read.count(name) for name in given}
    assert all(counts[name] == 1 for name in crossing)
    assert counts["entries"] == counts["bias"] == 3  # once whenever they are asked for
