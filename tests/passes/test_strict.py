"""JSON with two meanings, or none, is refused with one kind of error."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter

from passes.strict import as_schema, key_path, parse_json, short


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', r"'c' is given twice"),
        ("[NaN]", "NaN is no finite number"),
        ("-Infinity", "-Infinity is no finite number"),
        ("1e999", "1e999 is no finite number"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "digits"),
        ("{", "Expecting"),
        (b'"\xff"', "codec can't decode"),
    ],
)
def test_what_has_not_one_meaning_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_other_json_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, 1e3, null, true, "é"], "b": {}}') == {
        "a": [1, 2.5, 1000.0, None, True, "é"],
        "b": {},
    }


@dataclass
class _Pair:
    left: list[int]
    right: str = ""


def test_the_key_that_does_not_fit_a_schema_is_named() -> None:
    schema = TypeAdapter(list[_Pair])
    assert as_schema(schema, [{"left": [1]}]) == [_Pair([1])]
    for data, message in (
        ([{"left": [1, "x"]}], r"^\[0\]\.left\[1\]: Input should be a valid integer.* \(got 'x'\)$"),
        ([{"left": [1]}, {}], r"^\[1\]\.left: Field required$"),
    ):
        with pytest.raises(ValueError, match=message):
            as_schema(schema, data)


def test_places_and_values_in_words() -> None:
    assert key_path(["rules", 0, "block"]) == "rules[0].block"
    assert short("x" * 99) == "'" + "x" * 59 + "…"
    assert short(3) == "3"
