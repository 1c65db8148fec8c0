"""The reference of specs as tables, made of the schema: ``python -m bpc.spec.reference PAGE`` writes them into a page.

In the page they stand between two comments; a test holds docs/pattern-spec.md to what the schema says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bpc.spec.schema import Spec

BEGIN, END = "<!-- made by python -m bpc.spec.reference -->", "<!-- end -->"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
Schema = Mapping[str, Any]


def reference() -> str:
    """Two tables in Markdown: the keys of a spec, with those of its sections, and the keys of a rule."""
    schema = Spec.model_json_schema()
    whole = dict(_rows(schema, schema))
    rule = dict(_rows(schema["$defs"]["Rule"], schema))
    return f"Of a spec:\n\n{_table(whole)}\nOf each of its `rules`:\n\n{_table(rule)}"


def rewritten(page: str) -> str:
    """``page`` with the tables between its comments made anew. Raises ValueError for a page without them."""
    head, found, rest = page.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"the page has no place for the tables: {BEGIN} … {END}")
    return f"{head}{BEGIN}\n\n{reference()}\n{END}{tail}"


def _rows(section: Schema, schema: Schema, prefix: str = "") -> Iterator[tuple[str, tuple[str, str, str]]]:
    """{dotted key: (values, default, meaning)}."""
    for name, entry in section["properties"].items():
        inner = _resolved(entry, schema)
        if "properties" in inner:
            yield from _rows(inner, schema, f"{prefix}{name}.")
        else:
            default = "*required*" if name in section.get("required", ()) else _shown(entry.get("default"))
            yield prefix + name, (_values(inner, schema), default, entry.get("description", ""))


def _resolved(entry: Schema, schema: Schema) -> Schema:
    target = entry.get("$ref", "").rpartition("/")[2]
    return schema["$defs"][target] if target else entry


def _values(entry: Schema, schema: Schema) -> str:
    """What may stand there, in words."""
    entry = _resolved(entry, schema)
    if "anyOf" in entry:
        return ", or ".join(_values(e, schema) for e in entry["anyOf"] if e.get("type") != "null")
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    kind = entry["type"]
    if kind == "array":
        if "prefixItems" in entry:
            return f"{len(entry['prefixItems'])}, each: {_values(entry['prefixItems'][0], schema)}"
        return "tables" if "properties" in _resolved(entry["items"], schema) else "a text, or several"
    if kind == "object":
        return "a table" if "properties" in entry else f"{{name: {_values(entry['additionalProperties'], schema)}}}"
    bounds = [f"{sign} {_shown(entry[key]).strip('`')}" for key, sign in _BOUNDS.items() if key in entry]
    named = {"string": "a text", "boolean": "true, false", "integer": "whole number", "number": "number"}[kind]
    return " ".join([named, ", ".join(bounds)]).strip()


def _shown(value: Any) -> str:
    if value is None or value in ([], {}):
        return "–"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _table(rows: Mapping[str, tuple[str, str, str]]) -> str:
    lines = ["| key | values | default | |", "|---|---|---|---|"]
    for key, cells in rows.items():
        lines.append(" | ".join([f"| `{key}`", *(cell.replace("|", "\\|") for cell in cells)]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(rewritten(file.read_text()))
