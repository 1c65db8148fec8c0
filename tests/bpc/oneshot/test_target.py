"""Targets that say something, and those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from bpc.oneshot.target import Target, TargetError


def test_a_number_is_a_speed_up() -> None:
    assert Target.of(1.5) == Target(speedup=1.5)
    assert Target.of(Target(params=0.5)) == Target(params=0.5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"speedup": 1.5, "shape": (1, 128)}, "1.5× faster (onnx, float32, 1x128)"),
        ({"params": 0.8}, "80% of the parameters"),
        ({"density": 0.5}, "50% of the prunable weights"),
        ({"bytes": 15_000_000}, "15,000,000 bytes"),
    ],
)
def test_it_prints_as_it_was_asked(options: dict[str, Any], text: str) -> None:
    assert str(Target(**options)) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got none"),
        ({"speedup": 2, "params": 0.5}, "got speedup, params"),
        ({"speedup": 0.5}, "1 or more"),
        ({"speedup": float("inf")}, "1 or more"),
        ({"speedup": float("nan")}, "1 or more"),
        ({"params": 0}, "above 0"),
        ({"density": 1.5}, "up to 1"),
        ({"bytes": 0}, "positive"),
    ],
)
def test_others_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Target(**options)
