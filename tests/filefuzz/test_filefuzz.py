"""Some hundred damaged files, others on every run; ``python -m tests.filefuzz`` reads thousands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.filefuzz.damage import damaged
from tests.filefuzz.files import Door, doors
from tests.filefuzz.run import case, cases, tally

CASES = 400


@pytest.fixture(scope="module")
def every_door(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Door]:
    return list(doors(tmp_path_factory.mktemp("files")))


def test_files_are_good_until_they_are_damaged(every_door: Sequence[Door]) -> None:
    for door in every_door:
        assert door.judge(door.read()) is None, door.name


def test_damaged_files_are_refused_by_our_errors_or_read_as_what_they_say(every_door: Sequence[Door]) -> None:
    seed = random.SystemRandom().randrange(10**9)
    outcomes = list(cases(every_door, range(seed, seed + CASES)))
    failures = [outcome for outcome in outcomes if outcome.kind in ("foreign", "wrong")]
    assert not failures, f"python -m tests.filefuzz --cases {CASES} --seed {seed}\n{failures[0]}\n{tally(outcomes)}"


def test_a_foreign_error_and_a_wrong_reading_are_failures(every_door: Sequence[Door]) -> None:
    door = next(door for door in every_door if door.name == "certificate")
    before = door.file.read_bytes()
    assert case(door, 0).kind == "refused"
    assert case(replace(door, errors=()), 0).kind == "foreign"
    assert case(replace(door, read=lambda: 1, judge=lambda read: "wrong"), 0).kind == "wrong"
    assert door.file.read_bytes() == before


@pytest.mark.parametrize("kind", ["json", "safetensors", "text"])
def test_damage_is_drawn_by_its_seed(every_door: Sequence[Door], kind: str) -> None:
    good = next(door.file.read_bytes() for door in every_door if door.kind == kind or kind == "text")
    drawn = [damaged(good, kind, random.Random(seed)) for seed in range(50)]
    assert drawn == [damaged(good, kind, random.Random(seed)) for seed in range(50)]
    assert len({*drawn}) > 30
