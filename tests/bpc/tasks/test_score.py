"""Values and standard errors, against formulas and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bpc.tasks.score import Metric, correlation, exponential, f1, mean, scored

RANDOM = np.random.default_rng(0)


def test_a_mean_has_the_usual_standard_error() -> None:
    right = RANDOM.random(500) < 0.8
    found = scored(Metric("accuracy", mean), np.stack([right, np.ones(500)], 1))
    assert found.value == pytest.approx(right.mean())
    assert found.standard_error == pytest.approx(right.std(ddof=1) / np.sqrt(500))
    assert str(found) == f"accuracy {right.mean():.2%} ± {right.std(ddof=1) / np.sqrt(500):.2%}"


def test_f1_is_micro_averaged_and_its_error_is_the_bootstraps() -> None:
    said, real = RANDOM.random((400, 5)) < 0.4, RANDOM.random((400, 5)) < 0.5
    rows = np.stack([(said & real).sum(1), said.sum(1), real.sum(1)], 1).astype(float)
    found = scored(Metric("F1", f1), rows)
    assert found.value == pytest.approx(f1_score(real, said, average="micro"))
    drawn = [f1(rows[RANDOM.integers(0, 400, 400)].sum(0)) for _ in range(2000)]
    assert found.standard_error == pytest.approx(np.std(drawn), rel=0.1)


def test_correlation_is_pearsons_and_nothing_where_nothing_varies() -> None:
    x = RANDOM.normal(size=300)
    y = x + RANDOM.normal(size=300) + 5
    ones = np.ones(300)
    found = scored(Metric("r", correlation, share=False), np.stack([x, y, x * x, y * y, x * y, ones], 1))
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.standard_error == pytest.approx((1 - found.value**2) / np.sqrt(300), rel=0.2)
    constant = np.stack([3 * ones, y, 9 * ones, y * y, 3 * y, ones], 1)
    assert scored(Metric("r", correlation), constant).value == 0.0


def test_perplexity_weighs_tokens_not_rows() -> None:
    rows = np.array([[2.0, 1.0], [9.0, 9.0]])
    assert scored(Metric("perplexity", exponential, False, False), rows).value == pytest.approx(np.exp(11 / 10))


def test_no_examples_have_no_score() -> None:
    with pytest.raises(ValueError, match="no examples to measure accuracy on"):
        scored(Metric("accuracy", mean), np.zeros((0, 2)))
