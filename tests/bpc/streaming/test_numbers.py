"""What is made ahead: in order, and no more of it than was said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from bpc.streaming.numbers import in_turn


def test_few_are_made_before_they_are_asked_for() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name.upper()

    with ThreadPoolExecutor(1) as pool:
        found = in_turn(pool, make, "abcdef", ahead=2)
        assert next(found) == "A"
        pool.submit(int).result()  # the one thread has done what was asked of it
        assert made == ["a", "b"]
        assert list(found) == ["B", "C", "D", "E", "F"]


def test_what_fails_ends_the_others() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        if name == "b":
            raise OSError("no such disk")
        return name

    with ThreadPoolExecutor(1) as pool:
        found = in_turn(pool, make, "abcdefgh", ahead=2)
        assert next(found) == "a"
        with pytest.raises(OSError, match="no such disk"):
            list(found)
    assert "e" not in made
