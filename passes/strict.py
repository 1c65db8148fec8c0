"""Reading JSON that others wrote: one meaning or none, and errors that say where."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, and nothing else, for any other text.

    Refused as well: a key given twice, numbers that are none (``NaN``, ``Infinity``, ``1e999``), and nesting or digits
    without end.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def as_schema(schema: TypeAdapter[T], data: Any) -> T:
    """``data``, parsed JSON, as what ``schema`` describes. Raises ValueError that names the first key that is wrong."""
    try:
        return schema.validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        got = "" if first["type"] in ("missing", "extra_forbidden") else f" (got {short(first['input'])})"
        raise ValueError(f"{key_path(first['loc'])}: {first['msg']}{got}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def key_path(location: Iterable[Any]) -> str:
    """A place in nested tables and lists in words: ``rules[0].block``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def short(value: Any) -> str:
    """A value in an error message."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}…"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{short(next(n for n in names if names.count(n) > 1))} is given twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number
