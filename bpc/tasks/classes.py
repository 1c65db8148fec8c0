"""Names of classes in a column: as text, whatever the column holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bpc.errors import MendableError

if TYPE_CHECKING:
    from datasets import Dataset


class TaskError(MendableError):
    """Data or a model that does not fit a task; the message says what to do."""


def names_in(rows: Dataset, column: str) -> list[Any]:
    """The column with names in place of numbers of classes, and every other value as text; lists stay lists."""
    known = _class_label(rows, column)

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(entry) for entry in value]
        return str(value) if known is None else known.int2str(value)

    return [named(value) for value in rows[column]]


def all_names(rows: Dataset, column: str) -> list[str]:
    """The classes of a column, or of the lists in it: in its own order, else by size or alphabet."""
    known = _class_label(rows, column)
    if known is not None:
        return list(known.names)
    found: set[str] = set()
    for value in names_in(rows, column):
        found.update(value if isinstance(value, list) else [value])
    return in_order(found)


def in_order(names: Iterable[str]) -> list[str]:
    """By size where all are whole numbers, else by alphabet."""
    found = set(names)
    whole = all(name.isascii() and name.removeprefix("-").isdigit() for name in found)
    return sorted(found, key=int) if whole else sorted(found)


def positions(names: Sequence[str], classes: Sequence[str] | None) -> list[int]:
    """Of each name, its place among the classes. Raises `TaskError` for a name that is not among them."""
    assert classes is not None  # Task.learn comes before
    places = {name: i for i, name in enumerate(classes)}
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        shown = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
        raise TaskError(f"label {unknown!r} is not one of {shown}")
    return [places[name] for name in names]


def _class_label(rows: Dataset, column: str) -> Any | None:
    from datasets import ClassLabel

    feature: Any = rows.features[column]
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature if isinstance(feature, ClassLabel) else None
