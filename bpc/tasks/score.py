"""Metrics as functions of sums over examples, so that every one of them has a standard error.

A metric is f(s₁ + … + sₙ), where sᵢ holds what example i contributes (right answers and their number; nats and tokens;
…). Its standard error is the jackknife's, from f without each example in turn: for a mean exactly s/√n, and consistent
for ratios such as F1 and smooth functions such as a correlation (Efron & Stein 1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Metric:
    """``of`` maps sums (…, k) to values (…); ``share``: the value is a share, shown in percent."""

    name: str
    of: Callable[[Array], Array]
    higher_is_better: bool = True
    share: bool = True


@dataclass(frozen=True)
class Score:
    """A metric's value over ``count`` examples, with its standard error."""

    name: str
    value: float
    standard_error: float
    count: int
    higher_is_better: bool = True
    share: bool = True

    def __str__(self) -> str:
        if self.share:
            return f"{self.name} {self.value:.2%} ± {self.standard_error:.2%}"
        return f"{self.name} {self.value:.4g} ± {self.standard_error:.2g}"


def scored(metric: Metric, contributions: Array) -> Score:
    """The metric over examples whose ``contributions`` are (examples, k). Raises ValueError for none."""
    contributions = np.asarray(contributions, dtype=np.float64)
    count = len(contributions)
    if count == 0:
        raise ValueError(f"no examples to measure {metric.name} on")
    total = contributions.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(metric.of(total))
        without = metric.of(total - contributions) if count > 1 else np.array([math.nan])
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    return Score(metric.name, value, error, count, metric.higher_is_better, metric.share)


def mean(sums: Array) -> Array:
    """Of (sum, number)."""
    result: Array = sums[..., 0] / sums[..., 1]
    return result


def f1(sums: Array) -> Array:
    """Of (true positives, predicted, real); 0 where there is neither."""
    result: Array = 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)
    return result


def exponential(sums: Array) -> Array:
    """Perplexity of (nats, tokens)."""
    result: Array = np.exp(sums[..., 0] / sums[..., 1])
    return result


def correlation(sums: Array) -> Array:
    """Pearson's r of (x, y, x², y², xy, 1); 0 where one of them does not vary."""
    x, y, xx, yy, xy, n = np.moveaxis(sums, -1, 0)
    spread = np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0)
    varies = spread > 1e-18 * np.maximum(xx * yy, 1e-300)
    return np.where(varies, (xy - x * y / n) / np.sqrt(np.where(varies, spread, 1.0)), 0.0)
