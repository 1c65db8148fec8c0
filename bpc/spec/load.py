"""Reading a spec from a preset name, a file (TOML, YAML, JSON), a dict or a `Spec`.

A file or dict may start from a preset and change some of it: ``preset = "hybrid"`` at the top level, then any key of
the schema; tables merge key by key, lists replace.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bpc.spec.errors import SpecError
from bpc.spec.presets import PRESETS
from bpc.spec.schema import Spec
from passes.strict import key_path, parse_json, short

SpecLike = Spec | str | Path | Mapping[str, Any]

_MOST_ALIASES = 20
_CHANGED = " (changed)"  # in the name
_SUFFIXES = (".toml", ".yaml", ".yml", ".json")


def load_spec(spec: SpecLike) -> Spec:
    """The `Spec` that ``spec`` names or holds.

    Raises `SpecError`, naming the file, the key and the allowed values.
    """
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, Mapping):
        return _build(spec, "the spec")
    if isinstance(spec, str) and spec in PRESETS:
        return PRESETS[spec]
    if not isinstance(spec, str | Path):
        raise SpecError(
            f"a spec is a preset name, a file, a dict or a bpc.Spec, not a {type(spec).__name__}: {spec!r}."
        )
    path = Path(spec)
    if path.suffix not in _SUFFIXES:
        raise SpecError(
            f"{str(spec)!r} is neither a preset nor a {', '.join(_SUFFIXES)} file. Presets: {', '.join(PRESETS)}."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}).") from error
    try:
        data = _parse(path.suffix, text)
    except Exception as error:  # the parsers let anything out: a date that is none, a tag's own KeyError, recursion
        raise SpecError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(data, Mapping):
        held = "nothing" if data is None else f"a {type(data).__name__}"
        raise SpecError(f"{path} holds {held}; a spec is a table of keys such as rules, threshold.")
    return _build(data, str(path))


def change_spec(spec: SpecLike, changes: Mapping[tuple[str, ...], Any]) -> Spec:
    """The spec with other values under some keys, ``{("regularization", "final_lambda"): 10}``.

    Raises `SpecError`, whose cause is pydantic's error, for keys that do not exist and values they do not take.
    """
    loaded = load_spec(spec)
    data = loaded.model_dump()
    data["name"] = f"{loaded.name.removesuffix(_CHANGED)}{_CHANGED}"
    for path, value in changes.items():
        for key in reversed(path):
            value = {key: value}
        data = _merge(data, value)
    return _build(data, "the spec")


def _parse(suffix: str, text: str) -> Any:
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix == ".json":
        return parse_json(text)
    return yaml.load(text, Loader=_Loader)  # safe: it only makes plain values


class _Loader(yaml.SafeLoader):
    """Refuses keys that are given twice, and more aliases than a spec has use for: a few lines can mean gigabytes."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > _MOST_ALIASES:
            raise yaml.YAMLError(f"more than {_MOST_ALIASES} aliases (*name); write out what they stand for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = [key for key, _ in node.value if names.count(key.value) > 1]
        if twice:
            raise yaml.YAMLError(f"line {twice[1].start_mark.line + 1}: {twice[1].value!r} is given twice")
        return super().construct_mapping(node, deep)


def _build(data: Mapping[str, Any], where: str) -> Spec:
    data = dict(data)
    preset = data.pop("preset", None)
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise SpecError(f"{where}: preset: {preset!r} does not exist. Presets: {', '.join(PRESETS)}.")
        data = _merge(PRESETS[preset].model_dump(), {"name": f"{preset}{_CHANGED}", **data})
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        lines = [_explain(problem) for problem in _innermost(error.errors())]
        raise SpecError("\n".join(f"{where}: {line}" for line in dict.fromkeys(lines))) from error


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _innermost(problems: list[Any]) -> list[Any]:
    """Leave out what only follows from another problem further inside ("rules is empty" after a bad rule)."""
    places = [p["loc"] for p in problems]
    return [p for p in problems if not any(p["loc"] == q[: len(p["loc"])] != q for q in places)]


def _explain(problem: Any) -> str:
    """One line for a pydantic error: key, what is wrong, what is allowed."""
    location = list(problem["loc"])
    if "block" in location and isinstance(location[-1], str) and location[-1] != "block":  # a branch of the union
        location = location[:-1]
        message = (
            f"{problem['input']!r} is no block size; write a number of at least 1, or 'in_features', 'out_features' or "
            "'head_dim'"
        )
    elif problem["type"] == "extra_forbidden":
        allowed = _keys_at(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        message = f"unknown key{hint}; allowed keys: {', '.join(allowed)}"
    elif problem["type"] == "missing":
        message = "missing"
    else:
        kinds = {"tuple_type": "Input should be a list", "model_type": "Input should be a table of keys"}
        message = f"{kinds.get(problem['type'], problem['msg'])} (got {short(problem['input'])})"
    return f"{key_path(location)}: {message}"


def _keys_at(location: list[Any]) -> list[str]:
    """The keys the schema allows at a place."""
    schema: dict[str, Any] = Spec.model_json_schema()
    here = schema
    for part in location:
        here = here["items"] if isinstance(part, int) else here["properties"][part]
        reference = here.get("$ref") or next((o["$ref"] for o in here.get("anyOf", ()) if "$ref" in o), None)
        if reference:
            here = schema["$defs"][reference.rsplit("/", 1)[1]]
    keys = list(here.get("properties", {}))
    return keys if location else ["preset", *keys]
