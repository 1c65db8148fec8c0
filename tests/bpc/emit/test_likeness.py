from __future__ import annotations

import numpy as np
import pytest

from bpc.emit.check import TOLERANCE
from bpc.emit.likeness import Likeness

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.normal(2.0, [0.1, 1.0, 5.0, 1e3], (3, 7, 4))


def share(actual: np.ndarray, expected: np.ndarray = TRUTH) -> float:
    likeness = Likeness()
    likeness.add(expected[:1], actual[:1])
    likeness.add(expected[1:], actual[1:])
    return likeness.share


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros_like(TRUTH),
        np.broadcast_to(TRUTH.mean((0, 1)), TRUTH.shape),
        TRUTH[:, ::-1],
        -TRUTH,
        np.where(np.arange(4) == 1, 0.0, TRUTH),  # one channel alone
    ],
    ids=["zeros", "means", "permuted", "negated", "one channel"],
)
def test_wrong_outputs_are_beyond_every_tolerance(wrong: np.ndarray, size: float) -> None:
    assert share(wrong * size, TRUTH * size) > max(t.share for t in TOLERANCE.values())


def test_rounding_to_eight_bits_is_within_int8s() -> None:
    step = np.abs(TRUTH).max((0, 1)) / 127
    assert 0.005 < share(np.round(TRUTH / step) * step) < TOLERANCE["int8"].share / 4


def test_six_per_cent_are_no_float32_whatever_the_size() -> None:
    assert share(1e-6 * TRUTH * 1.06, 1e-6 * TRUTH) > TOLERANCE["float32"].share


def test_few_rows_are_judged_by_the_spread_over_channels() -> None:
    row = RANDOM.normal(size=(2, 50))
    likeness = Likeness()
    likeness.add(row, row + 0.01)
    assert 0.005 < likeness.share < 0.02


def test_infinities_agree_with_themselves_alone() -> None:
    scores = np.array([[0.0, -np.inf], [1.0, 2.0]])
    same, other = Likeness(), Likeness()
    assert same.add(scores, scores) == 0.0
    assert same.share == 0.0
    assert other.add(scores, np.nan_to_num(scores)) == np.inf


def test_a_last_dim_that_is_a_length_is_one_channel() -> None:
    likeness = Likeness()
    for length in (3, 9):
        scores = RANDOM.normal(size=(2, 4, length, length))
        likeness.add(scores, np.zeros_like(scores))
    assert likeness.share == pytest.approx(1.0, abs=0.1)
