"""bpc.json: what a saved directory says of itself beside its weights, and the hashes of the files it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter

from passes.certificate import hash_of
from passes.options import Granularity
from passes.plan.plan import Plan
from passes.strict import as_schema, parse_json

FORMAT = 4
_DIGEST = "digest"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TensorEntry(_Section):
    tensor: str


class ValueEntry(_Section):
    value: bool | int | float | str | None


Entry = TensorEntry | ValueEntry


class ExampleEntries(_Section):
    """Example inputs: tensors by their names in the example's file, plain values as they are."""

    args: tuple[Entry, ...]
    kwargs: dict[str, Entry]


class _Graph(_Section):
    plan: dict[str, Any]
    parameters: NonNegativeInt
    granularity: Granularity
    multiple: PositiveInt


class _Content(_Section):
    format: Literal[1, 2, 3, 4]
    plans: tuple[dict[str, Any], ...] = Field(min_length=1)
    granularity: str = "dims"
    refusal: str = ""
    surplus: str = ""
    graph: _Graph | None = None
    example: ExampleEntries
    files: dict[Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")], str] = {}


_SCHEMA = TypeAdapter(_Content)


class PlanFile:
    """The content of a bpc.json. Raises ValueError, naming the entry, for text that is none, or a damaged one.

    ``check_hashes``: also for one that was changed after it was written.
    """

    def __init__(self, text: str | bytes, *, check_hashes: bool = True) -> None:
        data = parse_json(text)
        if not isinstance(data, dict) or data.get("format") not in (1, 2, 3, FORMAT):
            found = data.get("format") if isinstance(data, dict) else None
            raise ValueError(f"format {found!r} is unknown to this version of bpc")
        if data["format"] == FORMAT and data.pop(_DIGEST, None) != hash_of(data) and check_hashes:
            raise ValueError("it was changed after it was written: its digest is another")
        if data["format"] == 1 and "plan" in data:
            data["plans"] = [data.pop("plan")]
        self.content = as_schema(_SCHEMA, data)
        self.plans = [_plan(f"plans[{number}]", plan) for number, plan in enumerate(self.content.plans)]
        graph = self.content.graph
        self.graph_plan = None if graph is None else _plan("graph.plan", graph.plan)

    def changed_file(self, directory: Path) -> Path | None:
        """A file beside it that is not the one it was written with. Raises OSError for one that is missing."""
        files = self.content.files.items()
        return next((directory / name for name, expected in files if _hash(directory / name) != expected), None)


def plan_text(content: dict[str, Any], files: Iterable[Path], known: Mapping[str, str] | None = None) -> str:
    """The text of a bpc.json, with the hashes of ``files``. ``known``: {name: hash} of those that need not be read."""
    hashes = {file.name: (known or {}).get(file.name) or _hash(file) for file in sorted(files)}
    data = {"format": FORMAT, **content, "files": hashes}
    return json.dumps({**data, _DIGEST: hash_of(data)}, allow_nan=False)


def _plan(where: str, data: dict[str, Any]) -> Plan:
    try:
        return Plan.from_json(json.dumps(data))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
