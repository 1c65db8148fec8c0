"""Defaults of a spec, and what its numbers mean to the masks."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bpc.spec import load_spec


def rules(**changes: Any) -> dict[str, Any]:
    return {"rules": [{"roles": "attention.*", "block": [1, 1]} | changes]}


@pytest.mark.parametrize(("method", "ends"), [("sigmoid_threshold", (0.0, 0.1)), ("topk", (1.0, 0.25))])
def test_default_thresholds_follow_the_method(method: str, ends: tuple[float, float]) -> None:
    schedule = load_spec(rules() | {"method": method}).threshold_schedule()
    assert (schedule.initial, schedule.final) == ends


def test_the_schedule_is_the_papers_in_shares_of_the_run() -> None:
    spec = load_spec(rules() | {"schedule": {"warmup": 0.05, "initial_warmup": 1, "final_warmup": 10}})
    schedule = spec.threshold_schedule()
    assert (schedule.warmup, schedule.cooldown) == pytest.approx((0.05, 0.5))
    assert [schedule.threshold(p) for p in (0.05, 0.5, 1.0)] == pytest.approx([0.0, 0.1, 0.1])


def test_group_weights_take_the_exact_name_before_a_glob() -> None:
    spec = load_spec(rules() | {"regularization": {"groups": {"decoder.*": 2.0, "decoder.ffn": 3.0}}})
    weight = spec.regularization.weight
    assert (weight("decoder.attention"), weight("decoder.ffn"), weight("attention")) == (2.0, 3.0, 1.0)


def test_masks_get_the_numbers_of_the_spec_and_a_lambda_per_group() -> None:
    written = {"regularization": {"final_lambda": 10, "groups": {"ffn": 0.5}}, "floor": 0.2, "scores": {"init": 1.5}}
    settings = load_spec(rules() | written).mask_settings(["attention", "ffn"])
    assert settings.regularization == {"attention": 10.0, "ffn": 5.0}
    assert (settings.min_kept, settings.initial_score, settings.method) == (0.2, 1.5, "sigmoid_threshold")


def test_a_spec_cannot_be_changed_once_it_is_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_spec(rules()).floor = 0.5  # type: ignore[misc]
