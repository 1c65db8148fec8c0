"""Cases: a good file, damaged, is read. It is refused by an error of ours, or what it says is used; nothing else."""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.filefuzz.damage import damaged
from tests.filefuzz.files import Door


@dataclass(frozen=True)
class Outcome:
    """``kind``: "refused", "accepted", or a failure: "foreign" or "wrong", with the text of it."""

    door: str
    seed: int
    kind: str
    text: str = ""


def cases(doors: Sequence[Door], seeds: range) -> Iterator[Outcome]:
    """One case for each seed, the doors in turn."""
    for seed in seeds:
        door = doors[seed % len(doors)]
        yield case(door, seed)


def case(door: Door, seed: int) -> Outcome:
    content = door.file.read_bytes()
    try:
        door.file.write_bytes(damaged(content, door.kind, random.Random(seed)))
        try:
            read = door.read()
            wrong = door.judge(read)
        except door.errors as error:
            return Outcome(door.name, seed, "refused", str(error))
        except Exception:
            return Outcome(door.name, seed, "foreign", traceback.format_exc(limit=-6))
        return Outcome(door.name, seed, "wrong" if wrong else "accepted", wrong or "")
    finally:
        door.file.write_bytes(content)


def tally(outcomes: Sequence[Outcome]) -> str:
    """What became of the cases, door by door."""
    counts = Counter((outcome.door, outcome.kind) for outcome in outcomes)
    lines = []
    for door in dict.fromkeys(outcome.door for outcome in outcomes):
        lines.append(
            f"{door}: " + ", ".join(f"{n} {kind}" for (name, kind), n in sorted(counts.items()) if name == door)
        )
    return "\n".join(lines)
