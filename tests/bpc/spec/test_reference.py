"""The tables of docs/pattern-spec.md are the schema: every key, what it takes, its default, what it means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpc.spec import Rule, Spec
from bpc.spec.reference import reference, rewritten

PAGE = Path(__file__).parents[3] / "docs" / "pattern-spec.md"


def test_the_page_is_up_to_date() -> None:
    """``python -m bpc.spec.reference docs/pattern-spec.md`` makes it so."""
    assert rewritten(PAGE.read_text()) == PAGE.read_text()


def test_every_key_has_a_meaning() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \| (.+) \| (.*) \|$", reference(), flags=re.MULTILINE)
    keys = {key for key, *_ in rows}
    sections = {key.partition(".")[0] for key in keys}
    assert set(Spec.model_fields) | set(Rule.model_fields) == sections
    assert "regularization.final_lambda" in keys
    assert all(meaning.strip() for *_, meaning in rows), rows


@pytest.mark.parametrize(
    "row",
    [
        "| `threshold.final` | number ≥ 0, ≤ 1 | – |",
        "| `distillation.temperature` | number > 0 | `2` |",
        '| `method` | `sigmoid_threshold`, `topk`, `magnitude` | `"sigmoid_threshold"` |',
        "| `block` | 2, each: whole number ≥ 1, or `in_features`, `out_features`, `head_dim` | *required* |",
        "| `regularization.groups` | {name: number} | – |",
    ],
)
def test_values_and_defaults(row: str) -> None:
    assert f"\n{row}" in reference()


def test_a_page_without_a_place_for_them_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the tables"):
        rewritten("# Nothing")
