"""The threshold at which units go, against masks that are made and looked at entry by entry."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from bpc.scores.units import Features, Units

HEADS, SHARED, DIMS, HIDDEN = 4, 2, 3, 5


def matrices(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"q": HEADS, "k": SHARED, "v": SHARED, "o": HEADS}
    found = {name: torch.randn(heads * DIMS, HIDDEN, generator=generator).double() for name, heads in shapes.items()}
    return {**found, "o": found["o"].t()}


def attention() -> Units:
    """Two heads of queries to each of keys and values."""
    queries = torch.arange(HEADS * DIMS).view(SHARED, HEADS // SHARED, DIMS)
    shared = torch.arange(SHARED * DIMS).view(SHARED, 1, DIMS)
    return Units(
        "attention.0",
        "attention",
        SHARED,
        (Features("o", 1, queries), Features("v", 0, shared)),
        (Features("q", 0, queries), Features("k", 0, shared)),
    )


def by_hand(levels: dict[str, Tensor], threshold: float) -> tuple[int, float, float]:
    """Live heads of values, and the dims of the widest, counted in the masks themselves."""
    kept = {name: grid > threshold for name, grid in levels.items()}
    value_dims, score_dims = [], []
    for group in range(SHARED):
        values, scores = 0, 0
        for dim in range(DIMS):
            row = group * DIMS + dim
            readers = [(group * 2 + own) * DIMS + dim for own in range(2)]
            values += bool(kept["v"][row].any()) and any(bool(kept["o"][:, r].any()) for r in readers)
            scores += bool(kept["k"][row].any()) and any(bool(kept["q"][r].any()) for r in readers)
        if values:
            value_dims.append(values)
            score_dims.append(max(scores, 1))
    if not value_dims:
        return 0, 1.0, 1.0
    return len(value_dims), max(value_dims) / DIMS, max(score_dims) / DIMS


@pytest.mark.parametrize("seed", range(4))
def test_heads_and_their_dims_go_as_the_masks_say(seed: int) -> None:
    levels = matrices(seed)
    units = attention().levels(lambda weight, dim: levels[weight].amax(1 - dim))
    seen = set()
    for threshold in np.linspace(-1.5, 3.0, 60):
        expected = by_hand(levels, threshold)
        assert units.kept(threshold) == pytest.approx(expected)
        seen.add(expected)
    assert len(seen) > 4


def test_dims_of_an_ffn_need_all_of_their_weights() -> None:
    up, down = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([4.0, 2.0, 6.0])
    index = torch.arange(3).view(3, 1, 1)
    ffn = Units("ffn.0", "ffn", 3, (Features("up", 0, index), Features("down", 1, index)))
    found = ffn.levels(lambda weight, _: {"up": up, "down": down}[weight])
    assert [found.kept(threshold)[0] for threshold in (0.0, 1.5, 2.5, 5.5)] == [3, 2, 1, 0]
    assert found.kept(2.5)[1:] == (1.0, 1.0)


def test_weights_without_a_mask_keep_all() -> None:
    found = attention().levels(lambda *_: None)
    for threshold, share in itertools.product((-9.0, 9.0, 1e300), (1.0,)):
        assert found.kept(threshold) == (SHARED, share, 1.0)
