"""Labelled texts from CSV, TSV or JSON-lines files, as the data sets that `bpc prune` trains on."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from bpc.terminal.errors import CommandError


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the text, a second text (or None) and the label."""

    text: str = "text"
    pair: str | None = None
    label: str = "label"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.text, self.pair, self.label) if name is not None)


def read_table(path: Path, columns: Columns) -> list[dict[str, str]]:
    """The rows of a .csv, .tsv or .jsonl file that have a text and a label. Raises `CommandError`."""
    return read_columns(path, columns.names)


def read_texts(path: Path, column: str) -> list[str]:
    """The lines of a .txt file that are not blank, or what stands in a column of another. Raises `CommandError`."""
    if path.suffix != ".txt":
        return [row[column] for row in read_columns(path, (column,))]
    try:
        texts = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    if not texts:
        raise CommandError(f"{path} has no lines of text")
    return texts


def read_columns(path: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a .csv, .tsv or .jsonl file that have all of the columns ``names``. Raises `CommandError`."""
    if path.suffix not in (".csv", ".tsv", ".jsonl"):
        raise CommandError(f"{path}: data files are .csv, .tsv or .jsonl")
    try:
        rows = _read_rows(path)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except csv.Error as error:
        raise CommandError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}") from error
    if not rows:
        raise CommandError(f"{path} has no rows")
    missing = [name for name in names if name not in rows[0]]
    if missing:
        raise CommandError(f"{path} has no column {missing[0]!r}; its columns: {', '.join(map(str, rows[0]))}")
    complete = [{name: str(row[name]) for name in names} for row in rows if all(_given(row, names))]
    if not complete:
        raise CommandError(f"{path}: no row has all of {', '.join(names)}")
    return complete


def _not_utf8(path: Path, error: UnicodeDecodeError) -> CommandError:
    return CommandError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}); convert it, e.g. with iconv")


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".jsonl":
            return [_json_row(path, number, line) for number, line in enumerate(file, 1) if line.strip()]
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def _json_row(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise CommandError(f"{path}, line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise CommandError(f"{path}, line {number} is no JSON object")
    return row


def _given(row: Mapping[str, Any], names: Sequence[str]) -> list[bool]:
    return [row.get(name) not in (None, "") for name in names]


class LabelledTexts(Dataset[dict[str, Any]]):
    """Tokenised on access; one dict of unpadded ids and a label per row."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, str]],
        columns: Columns,
        labels: Sequence[str],
        tokenizer: Any,
        max_length: int,
    ) -> None:
        self.rows, self.columns, self.tokenizer, self.max_length = rows, columns, tokenizer, max_length
        self.label_ids = {label: i for i, label in enumerate(labels)}
        unknown = sorted({row[columns.label] for row in rows} - self.label_ids.keys())
        if unknown:
            raise CommandError(f"label {unknown[0]!r} is not one of {', '.join(self.label_ids)}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        pair = row[self.columns.pair] if self.columns.pair else None
        encoded = self.tokenizer(row[self.columns.text], pair, truncation=True, max_length=self.max_length)
        return {**encoded, "labels": self.label_ids[row[self.columns.label]]}


def labels_of(rows: Sequence[Mapping[str, str]], columns: Columns) -> list[str]:
    """The distinct labels, in numeric order where all are numbers."""
    found = {row[columns.label] for row in rows}
    return sorted(found, key=int) if all(label.lstrip("-").isdigit() for label in found) else sorted(found)
