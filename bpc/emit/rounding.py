"""Rows of numbers in 8 or 4 bits, each with its scales: what a table is stored as, and nothing of graphs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 32  # neighbours in a row that share a scale in 4 bits

_CHUNK = 4_000_000  # numbers worked on at a time
_SHRINK = np.linspace(0.75, 1.15, 9, dtype=np.float32)  # of the scale at which a block's largest number is just met


def rows_int8(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (…, width) as int8 of the same shape and float32 scales (…, 1): row ≈ int8 · scale, within half a scale.

    A row's largest number, of either sign, is ±127; zeros stay zeros.
    """
    largest = np.abs(table).max(-1, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    scales = np.where(scales > 0, scales, np.float32(1))  # the quotient may underflow
    numbers = np.empty(table.shape, np.int8)
    for rows in _chunks(table):
        numbers[rows] = np.clip(np.rint(table[rows] / scales[rows]), -127, 127)
    return numbers, scales


def blocks_int4(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (…, width) as packed uint8 (…, n·16) and float scales (…, n), n blocks of 32, the last filled with zeros.

    Number i of a row is (nibble − 8) · scale of block i // 32, a nibble being 0 to 15; those of the row's first half
    are the low nibbles of its bytes, those of the second half the high ones. A scale may be negative: the largest
    number of a block, of either sign, is what takes −8. Of several scales the one of the least squared error is taken.
    Scales are float16, or float32 where they are out of its normal range. Zeros stay zeros.
    """
    count = -(-table.shape[-1] // BLOCK)
    packed = np.empty((*table.shape[:-1], count * BLOCK // 2), np.uint8)
    scales = np.empty((*table.shape[:-1], count), np.float32)
    parts = list(_chunks(table))
    for rows in parts:
        scales[rows] = _scales(_blocked(table[rows], count))
    sizes, half = np.abs(scales[scales != 0]), np.finfo(np.float16)
    if not sizes.size or (sizes.min() >= half.tiny and sizes.max() <= half.max):
        scales = scales.astype(np.float16)
    for rows in parts:
        wide = scales[rows].astype(np.float32)[..., None]
        nibbles = (_levels(_ratios(_blocked(table[rows], count), wide)) + 8).astype(np.uint8)
        nibbles = nibbles.reshape(*nibbles.shape[:-2], count * BLOCK)
        low, high = np.split(nibbles, 2, axis=-1)
        packed[rows] = low | high << 4
    return packed, scales


def read_int4(packed: np.ndarray, scales: np.ndarray, width: int) -> np.ndarray:
    """The float32 (…, width) that `blocks_int4` stands for."""
    nibbles = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.float32) - 8
    blocks = nibbles.reshape(*scales.shape, BLOCK)
    blocks *= scales.astype(np.float32)[..., None]
    return blocks.reshape(nibbles.shape)[..., :width]


def _chunks(table: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis, of some `_CHUNK` numbers each."""
    step = max(1, _CHUNK * len(table) // max(1, table.size))
    return (slice(start, start + step) for start in range(0, len(table), step))


def _blocked(rows: np.ndarray, count: int) -> np.ndarray:
    """(…, width) as (…, count, 32), zeros at the end."""
    missing = count * BLOCK - rows.shape[-1]
    filled = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)])
    return filled.reshape(*rows.shape[:-1], count, BLOCK)


def _scales(blocks: np.ndarray) -> np.ndarray:
    """(…, n, 32) -> (…, n): the best of some scales, then the one that fits its rounded numbers best."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scale = largest / np.float32(-8)
    ratios = _ratios(blocks, scale)  # −8 to 8, whatever the blocks' size
    best = np.ones_like(scale)
    least = np.full(scale.shape, np.inf, np.float32)
    for share in _SHRINK:
        error = np.square(_levels(ratios / share) * share - ratios).sum(-1, keepdims=True)
        best = np.where(error < least, share, best)
        least = np.minimum(error, least)
    levels = _levels(ratios / best)
    fitted = (levels * ratios).sum(-1, keepdims=True) / np.maximum(np.square(levels).sum(-1, keepdims=True), 1)
    return (fitted * scale)[..., 0]


def _ratios(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales != 0)


def _levels(ratios: np.ndarray) -> np.ndarray:
    """The nearest whole numbers from −8 to 7."""
    return np.clip(np.rint(ratios), -8, 7)
