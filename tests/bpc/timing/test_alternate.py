"""Timing in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpc.timing.alternate import BenchmarkError, Timing, Worker, alternate


def test_a_side_that_cannot_load_is_named(tmp_path: Path) -> None:
    command = {"kind": "onnx", "path": str(tmp_path / "absent.onnx"), "inputs": "", "threads": 1}
    with pytest.raises(BenchmarkError, match=r"small: .*absent\.onnx"):
        Worker("small", command)


class Recorded:
    """A worker that notes its turns and takes a second more each time."""

    def __init__(self, name: str, turns: list[tuple[str, int, int]]) -> None:
        self.name, self._turns, self._seconds = name, turns, 0.0

    def time(self, warmup: int, repeats: int, clock: str = "wall") -> list[float]:
        self._turns.append((self.name, warmup, repeats))
        self._seconds += 1.0
        return [self._seconds]


def test_workers_take_turns_in_alternating_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpc.timing.alternate._PAUSE_BETWEEN_TURNS", 0)
    turns: list[tuple[str, int, int]] = []
    found = alternate([Recorded("a", turns), Recorded("b", turns)], repeats=7, warmup=4)  # type: ignore[list-item]
    assert turns[:2] == [("a", 4, 1), ("b", 4, 1)]  # not timed
    assert [name for name, *_ in turns[2:]] == list("abba" * 4)[:14]
    assert found == [Timing(name, (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)) for name in "ab"]
    with pytest.raises(ValueError, match="repeats=6: a median of fewer than 7"):
        alternate([], repeats=6)


def test_figures_of_a_timing() -> None:
    timing = Timing("a", (4.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0))
    assert (timing.median, timing.best, timing.spread) == (4.0, 1.0, 1.0)
