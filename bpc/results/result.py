"""The file ``result.json``, schema bpc.result/1: raw numbers with units, and what they were measured on.

Tables, reports and model cards are made from it; nothing is formatted before.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bpc.errors import MendableError
from bpc.results.comparison import this_machine
from bpc.writing import write_text

SCHEMA: Literal["bpc.result/1"] = "bpc.result/1"
Unit = Literal["share", "1", "bytes", "s", "FLOP", "ratio", "count"]


Schema = TypeVar("Schema", bound=BaseModel)


class Strict(BaseModel):
    """Nothing that the schema does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Value(Strict):
    """A number, its standard error where it has one, and the single measurements behind it."""

    value: float
    standard_error: float | None = None
    raw: list[float] | None = None


class Figure(Strict):
    """One quantity of the original and the small model.

    ``unit``: "share" is shown in percent, "1" is a plain number, "ratio" that of original to small. ``sample``: what it
    was measured on; ``workload``: under which setting. Two figures compare only where unit, sample and workload agree.
    """

    name: str
    unit: Unit
    original: Value | None = None
    small: Value | None = None
    better: Literal["higher", "lower"] | None = None
    sample: str | None = None
    workload: dict[str, str | int | float] = {}


class Result(Strict):
    """What one run of a command came to.

    ``inputs``: {what was read: its sha256}; ``settings``: what was chosen; ``details``: what only this command has.
    """

    schema_: Literal["bpc.result/1"] = Field(default=SCHEMA, alias="schema")
    command: str
    figures: list[Figure]
    settings: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    seeds: dict[str, int] = {}
    machine: dict[str, Any] = Field(default_factory=lambda: asdict(this_machine(torch.get_num_threads())))
    notes: list[str] = []
    details: dict[str, Any] = {}

    def figure(self, name: str) -> Figure | None:
        """The figure of this name, if there is one."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_none=True)

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        write_text(Path(file), self.to_json())


class ResultError(MendableError):
    """A file that is no result."""


def read_result(file: str | os.PathLike[str]) -> Result:
    """Raises `ResultError` for what is no result file of this schema, and for one that does not exist."""
    return read_as(Result, file, f"result of bpc ({SCHEMA})")


def read_as(schema: type[Schema], file: str | os.PathLike[str], what: str) -> Schema:
    """A file as pydantic's ``schema`` has it; ``what`` it should be. Raises `ResultError` for every other file."""
    try:
        return schema.model_validate_json(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultError(f"{file} does not exist") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ResultError(f"{file} is no {what}: {place}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{file} cannot be read: {error}") from error
