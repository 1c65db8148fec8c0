"""Times are measured once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import bpc.timing.remember
from bpc.timing.remember import cache_directory, remembered


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bpc.timing.remember, "cache_directory", cache_directory)  # in place of the session's
    return tmp_path / "bpc" / "latency"


def test_the_same_question_is_measured_once(cache: Path) -> None:
    assert cache_directory() == cache
    asked = []

    def measure() -> list[float]:
        asked.append(None)
        return [float(len(asked)), 0.5]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: remembered({"a": 1, "shape": (8, 64)}, measure), range(4)))
    assert answers == [[1.0, 0.5]] * 4
    assert remembered({"a": 2, "shape": (8, 64)}, measure) == [2.0, 0.5]
    assert len(asked) == 2


@pytest.mark.parametrize("text", ["", "{", "null", '{"about": {"a": 1}}', '{"about": {"a": 2}, "seconds": [1]}'])
def test_a_damaged_table_is_measured_again(cache: Path, text: str) -> None:
    remembered({"a": 1}, lambda: [1.0])
    (file,) = cache.glob("*.json")
    file.write_text(text)
    assert remembered({"a": 1}, lambda: [2.0]) == [2.0]
    assert remembered({"a": 1}, lambda: [3.0]) == [2.0]
