"""Rows in 8 and 4 bits, against what their docstrings say of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bpc.emit import rounding
from bpc.emit.rounding import blocks_int4, rows_int8
from tests.bpc.emit.models import numbers

TABLES = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=3, max_side=70),
    elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
    fill=st.floats(-2, 2, width=32),
)


def from_int4(packed: np.ndarray, scales: np.ndarray, width: int) -> np.ndarray:
    """Number by number, as documented."""
    padded = 2 * packed.shape[-1]
    columns = [packed[..., i] & 15 if i < padded // 2 else packed[..., i - padded // 2] >> 4 for i in range(width)]
    wide = scales.astype(np.float32)
    rows = [(c.astype(np.float32) - 8) * wide[..., i // 32] for i, c in enumerate(columns)]
    return np.stack(rows, -1)


@given(TABLES)
def test_a_row_of_int8_is_right_within_half_a_step(table: np.ndarray) -> None:
    rows, scales = rows_int8(table)
    assert (rows.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (*table.shape[:-1], 1))
    assert rows.min() >= -127
    largest = np.abs(table).max(-1, keepdims=True)
    tiny = largest < 1e-35  # there a scale has few bits itself
    assert (np.abs(rows * scales - table) <= np.where(tiny, largest, 0.50001 * largest / 127)).all()
    assert not rows[table == 0].any()


@given(TABLES)
def test_a_block_of_int4_is_right_within_a_step(table: np.ndarray) -> None:
    packed, scales = blocks_int4(table)
    width = table.shape[-1]
    assert scales.shape == (*table.shape[:-1], -(-width // 32))
    assert packed.shape == (*table.shape[:-1], 16 * scales.shape[-1])
    read = from_int4(packed, scales, width)
    assert not read[table == 0].any()
    for start in range(0, width, 32):
        block, found = table[..., start : start + 32], read[..., start : start + 32]
        largest = np.abs(block).max(-1, keepdims=True)
        ok = np.abs(found - block) <= np.where(largest < 1e-35, 2 * largest, 0.4 * largest)
        assert ok.all()


def test_four_bits_cost_less_than_rounding_to_the_largest_number() -> None:
    table = numbers(300, 96)
    read = from_int4(*blocks_int4(table), 96)
    blocks = table.reshape(-1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / 7
    plain = np.linalg.norm(np.rint(blocks / scale) * scale - blocks)
    assert 0.06 < np.linalg.norm(read - table) / np.linalg.norm(table) < 0.085
    assert np.linalg.norm(read - table) < 0.9 * plain


def test_every_block_has_a_scale_of_its_own() -> None:
    table = np.concatenate([numbers(4, 32), 1000 * numbers(4, 32), numbers(4, 7)], axis=1)
    read = from_int4(*blocks_int4(table), 71)
    for part in (slice(0, 32), slice(32, 64), slice(64, 71)):
        assert np.linalg.norm((read - table)[:, part]) < 0.1 * np.linalg.norm(table[:, part])


@pytest.mark.parametrize(("size", "kind"), [(1.0, np.float16), (1e-6, np.float32), (1e7, np.float32)])
def test_scales_are_float16_where_that_holds_them(size: float, kind: type) -> None:
    table = (size * numbers(5, 40)).astype(np.float32)
    packed, scales = blocks_int4(table)
    assert scales.dtype == kind
    assert np.linalg.norm(from_int4(packed, scales, 40) - table) < 0.1 * np.linalg.norm(table)


def test_large_tables_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = numbers(13, 2, 50)
    at_once = (*rows_int8(table), *blocks_int4(table))
    monkeypatch.setattr(rounding, "_CHUNK", 300)
    for whole, parts in zip(at_once, (*rows_int8(table), *blocks_int4(table)), strict=True):
        np.testing.assert_array_equal(whole, parts)
