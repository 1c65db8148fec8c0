"""Rows from files, folders and the hub, through `datasets`."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpc.tasks.task import TaskError

if TYPE_CHECKING:
    from datasets import Dataset

_ENCODED = {"encoding": "utf-8-sig"}  # with or without a byte order mark
_BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {"na_filter": False, "index_col": False, **_ENCODED}),  # the text "NA" is a text
    ".tsv": ("csv", {"na_filter": False, "index_col": False, "delimiter": "\t", **_ENCODED}),
    ".jsonl": ("json", _ENCODED),
    ".json": ("json", _ENCODED),
    ".parquet": ("parquet", {}),
    ".txt": ("text", _ENCODED),
}
_SPLITS = re.compile(r"(train|validation|valid|dev|test|all)[^:]*|.*\[.*\]")


def read_rows(source: str, split: str = "train") -> Dataset:
    """Rows of a file (.csv, .tsv, .jsonl, .json, also SQuAD's, .parquet, .txt), a folder of images, or the hub.

    ``source``: a path, or ``owner/name[:config][:split]`` of a data set on the hub, of which ``split`` is read where
    none is named. Raises `TaskError`.
    """
    path = Path(source)
    if path.is_dir():
        return _checked(_load("imagefolder", path, data_dir=str(path), split="train"), source)
    if not path.exists():
        if path.suffix in _BUILDERS or source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise TaskError(f"{source}: there is no such file")
        return _checked(_from_hub(source, split), source)
    if path.suffix not in _BUILDERS:
        raise TaskError(f"{path}: data files are {', '.join(_BUILDERS)}; folders hold images")
    if path.suffix == ".json" and (articles := _squad(path)) is not None:
        from datasets import Dataset

        return _checked(Dataset.from_list(list(articles)), source)
    builder, options = _BUILDERS[path.suffix]
    if builder == "csv":
        options = {**options, "features": _texts(path, options.get("delimiter", ","))}
    return _checked(_load(builder, path, data_files=str(path), split="train", **options), source)


def read_texts(source: str, column: str = "text", pair: str | None = None) -> list[Any]:
    """The texts of a column, or pairs of two columns' texts, where they are not blank. Raises `TaskError`."""
    rows = read_rows(source)
    columns = [column] if pair is None else [column, pair]
    if Path(source).suffix == ".txt":
        columns = ["text"]
    for name in columns:
        if name not in rows.column_names:
            raise TaskError(f"{source} has no column {name!r}; its columns: {', '.join(rows.column_names)}")
    found = [[row[name] for name in columns] for row in rows.select_columns(columns)]
    whole = [[str(value) for value in row] for row in found if all(v is not None and str(v).strip() for v in row)]
    if not whole:
        raise TaskError(f"{source} has no texts" if pair is None else f"{source}: no row has both {column} and {pair}")
    return [row[0] for row in whole] if pair is None else [tuple(row) for row in whole]


def _texts(path: Path, delimiter: str) -> Any:
    """Every column of a table as text: what looks like a number in one may be a name."""
    import csv

    from datasets import Features, Value

    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            names = next(csv.reader(file, delimiter=delimiter), [])
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error
    if not names:
        raise TaskError(f"{path} has no rows")
    if len(set(names)) < len(names):
        raise TaskError(f"{path}: two columns have one name: {', '.join(names)}")
    return Features({name: Value("string") for name in names})


def _load(builder: str, path: Path, **options: Any) -> Dataset:
    import datasets
    from pandas.errors import ParserWarning

    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what goes wrong is said once, below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # rows with more fields than columns
            rows: Dataset = datasets.load_dataset(builder, **options)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, ParserWarning) as error:
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            cause = deeper
        if isinstance(cause, UnicodeDecodeError):
            raise _not_utf8(path, cause) from error
        if "corresponds to no data" in str(cause):
            raise TaskError(f"{path} has no rows") from error
        if path.suffix == ".jsonl":
            _check_lines(path)
        raise TaskError(f"{path} cannot be read: {' '.join(str(cause).split())}") from error
    return rows


def _check_lines(path: Path) -> None:
    """Raise `TaskError` for the first line that is no JSON object."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip() and not isinstance(json.loads(line), dict):
                    raise TaskError(f"{path}, line {number} is no JSON object")
            except json.JSONDecodeError as error:
                raise TaskError(f"{path}, line {number} is not JSON: {error}") from error


def _from_hub(source: str, split: str) -> Dataset:
    import datasets

    name, *rest = source.split(":")
    if rest and _SPLITS.fullmatch(rest[-1]):
        split = rest.pop()
    if len(rest) > 1:
        raise TaskError(f"{source}: a data set of the hub is given as owner/name[:config][:split]")
    try:
        found: Dataset = datasets.load_dataset(name, *rest, split=split)
    except Exception as error:  # of the network, the hub and the data set's own files: anything can come out of it
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise TaskError(f"{name} is no file here, and cannot be loaded as a data set of the hub: {first[0]}") from error
    return found


def _checked(rows: Dataset, source: str) -> Dataset:
    if not len(rows):
        raise TaskError(f"{source} has no rows")
    return rows


def _not_utf8(path: Path, error: UnicodeDecodeError) -> TaskError:
    return TaskError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}); convert it, e.g. with iconv")


def _squad(path: Path) -> Iterator[dict[str, Any]] | None:
    """Questions of a file in SQuAD's nested layout; None for another."""
    with path.open(encoding="utf-8-sig") as file:
        if not re.match(r"\s*\{", file.read(1024)):
            return None
        file.seek(0)
        try:
            content = json.load(file)
        except json.JSONDecodeError:
            return None  # JSON lines, or damaged: the reader of those says where
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error
    articles = content.get("data") if isinstance(content, dict) else None
    if not isinstance(articles, list) or not all(isinstance(a, dict) and "paragraphs" in a for a in articles):
        return None
    return _questions(articles, path)


def _questions(articles: list[Any], path: Path) -> Iterator[dict[str, Any]]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = asked.get("answers") or []
                    yield {
                        "question": asked["question"],
                        "context": paragraph["context"],
                        "answers": {
                            "text": [str(a["text"]) for a in answers],
                            "answer_start": [int(a["answer_start"]) for a in answers],
                        },
                    }
    except (KeyError, TypeError, ValueError) as error:
        raise TaskError(f"{path} is not laid out as SQuAD is: {type(error).__name__} {error}") from error
