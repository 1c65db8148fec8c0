"""How alike the outputs of a file and of the graph are: the largest difference, and the error of every channel.

A channel is an index of an output's last dim. Its error counts against what the channel says, its spread over all rows
seen: a file of zeros, of constants, of other rows' outputs or of another sign is wrong by all of that (a share of 1 and
more), whatever the outputs' size. Rounding to 8 bits costs a few per cent per layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Below these shares of a channel's size, and of the median channel's spread, its own spread says nothing.
_OF_SIZE, _OF_OTHERS = 0.05, 0.25
_FEW_ROWS = 8  # with fewer, the spread is that over the channels


@dataclass(frozen=True)
class Tolerance:
    """``largest``: of |file − graph| over max(1, max |graph| so far). ``share``: of a channel's error (mean square)."""

    largest: float
    share: float


class Likeness:
    """Numbers of one output over several runs, summed per channel. Integers and bools count as numbers."""

    def __init__(self) -> None:
        self.largest = self.scale = 0.0
        self._sums = np.zeros((4, 0))  # rows, Σx, Σx², Σerror²

    def add(self, expected: np.ndarray, actual: np.ndarray) -> float:
        """Take in one run; its largest difference. Numbers that are not finite agree where they are the same."""
        expected, actual = expected.astype(np.float64), actual.astype(np.float64)
        if expected.size == 0:
            return 0.0
        known = np.isfinite(expected)
        same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
        with np.errstate(invalid="ignore"):
            error = np.where(known | ~same, actual - expected, 0.0)
        expected = np.where(known, expected, 0.0)
        largest = float(np.abs(np.where(np.isnan(error), np.inf, error)).max())
        self.largest, self.scale = max(self.largest, largest), max(self.scale, float(np.abs(expected).max()))
        width = expected.shape[-1] if expected.ndim > 1 else 1
        rows, errors = expected.reshape(-1, width), error.reshape(-1, width)
        sums = np.stack([np.full(width, len(rows)), rows.sum(0), (rows**2).sum(0), (errors**2).sum(0)])
        if self._sums.shape[1] not in (0, width):  # the last dim is a length: all of it is one channel
            self._sums, sums = self._sums.sum(1, keepdims=True), sums.sum(1, keepdims=True)
        self._sums = self._sums + sums if self._sums.shape[1] else sums
        return largest

    @property
    def share(self) -> float:
        """Error over spread of the channel where it is largest; 0 without any error, inf for what is not finite."""
        sums = self._sums
        if not sums.shape[1] or not sums[3].any():
            return 0.0
        if sums[0, 0] < _FEW_ROWS:
            sums = sums.sum(1, keepdims=True)
        if not np.isfinite(sums[3]).all():
            return np.inf
        rows, total, squares, errors = sums
        spread = np.sqrt(np.maximum(squares / rows - (total / rows) ** 2, 0.0))
        size = np.sqrt(squares / rows)
        base = np.maximum.reduce([spread, _OF_SIZE * size, np.full_like(size, _OF_OTHERS * np.median(spread))])
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(errors > 0, np.sqrt(errors / rows) / base, 0.0)
        return float(shares.max())
