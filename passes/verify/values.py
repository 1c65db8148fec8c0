"""Numbers for fresh inputs that are like the example's: masks stay masks, indices stay in their table."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from passes.verify.uses import Use

_HIDDEN = -1e3  # additive masks hide with less than this
_WIDE = 16  # an example with so many values between its least and its largest shows the range that is meant


def draw(
    example: torch.Tensor, shape: Sequence[int], use: Use, generator: torch.Generator, *, padded_left: bool = False
) -> torch.Tensor:
    """Random numbers of ``shape`` and the example's dtype.

    Integers are drawn from the example's range; indices from all of their table, unless the example shows a wide part
    of it (which may leave out special tokens). Masks hide a random end of each row, never all of it. Floats follow the
    example's mean and spread; an example of equal numbers gets a spread of 1.
    """
    shape = tuple(shape)
    if use.table is not None and not example.is_floating_point() and example.dtype is not torch.bool:
        low, high = _range(example)
        if 2 * (high - low) < min(2 * _WIDE, use.table):
            low, high = 0, max(1, use.table) - 1
        return torch.randint(low, high + 1, shape, generator=generator).to(example.dtype)
    levels = _levels(example, use)
    if levels is not None:
        shown, hidden = levels
        seen = _seen(example != hidden, shape, generator, padded_left)
        return torch.where(seen, torch.tensor(shown), torch.tensor(hidden)).to(example.dtype)
    if example.is_complex():
        return torch.complex(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)).to(
            example.dtype
        )
    if not example.is_floating_point():
        low, high = _range(example)
        return torch.randint(low, high + 1, shape, generator=generator).to(example.dtype)
    numbers = example.double()
    finite = numbers[torch.isfinite(numbers)]
    spread, mean = (float(finite.std()), float(finite.mean())) if finite.numel() > 1 else (0.0, 0.0)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * (spread or 1.0) + mean).to(example.dtype)


def _range(example: torch.Tensor) -> tuple[int, int]:
    return (int(example.min()), int(example.max())) if example.numel() else (0, 1)


def repeat_example(example: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The example's own numbers at another size, repeated or cut in each dim: inputs stay fit for each other."""
    for dim, size in enumerate(shape):
        if size != example.shape[dim]:
            example = example.index_select(dim, torch.arange(size) % max(1, example.shape[dim]))
    return example


def shown_value(example: torch.Tensor) -> bool:
    """What a 0/1 mask holds where something is to be seen: 1 in attention masks, 0 in torch's key padding masks.

    Padding is at one end of the rows: at the other all of them agree. A row that sees nothing would promise nothing.
    """
    rows = example.bool().reshape(-1, example.shape[-1] if example.dim() else 1)
    ends = [rows[:, position] for position in (0, -1)] if rows.numel() else []
    return next((bool(end[0]) for end in ends if bool((end == end[0]).all())), True)


def _levels(example: torch.Tensor, use: Use) -> tuple[float, float] | None:
    """(what a mask holds where it shows, where it hides); None for an input that is no mask."""
    if example.is_complex() or example.dim() == 0:
        return None
    if not example.is_floating_point():
        shown = shown_value(example)
        return (float(shown), float(not shown)) if bool(((example == 0) | (example == 1)).all()) else None
    zeros, ones, hiding = example == 0, example == 1, example < _HIDDEN
    if bool(hiding.any()):
        return (0.0, float(example.min())) if bool((hiding | zeros).all()) else None
    if bool(zeros.all()):
        return (0.0, torch.finfo(example.dtype).min) if use.hides or use.named else None
    if bool((zeros | ones).all()) and (use.named or bool(zeros.any())):
        shown = shown_value(example)
        return float(shown), float(not shown)
    return None


def _seen(example: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator, padded_left: bool) -> torch.Tensor:
    """(shape) bool: a random end of each row hidden, the same for all queries; the later keys too if the example does.

    Of rank 2 rows are inputs; of higher rank the first dim is the batch, the last the keys, the one before the queries.
    """
    keys = shape[-1]
    rows = (shape[0], *[1] * (len(shape) - 1)) if len(shape) > 1 else (1,)
    length = torch.randint(1, keys + 1, rows, generator=generator)
    positions = torch.arange(keys)
    seen = positions >= keys - length if padded_left else positions < length
    if _is_causal(example):
        seen = seen & (positions <= torch.arange(shape[-2]).unsqueeze(-1))
    return seen.expand(shape)


def _is_causal(seen: torch.Tensor) -> bool:
    if seen.dim() < 2 or seen.shape[-1] != seen.shape[-2] or seen.shape[-1] < 2:
        return False
    return not bool(seen.triu(1).any()) and bool(seen.diagonal(dim1=-2, dim2=-1).any())
