"""The interface of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from bpc.tasks.classes import TaskError, all_names
from bpc.tasks.score import Metric

if TYPE_CHECKING:
    from datasets import Dataset

_TEXTS = {"text", "pair", "question", "context", "source", "target"}  # whatever they look like
IGNORED = -100  # of labels that do not count, as in transformers


class Task(ABC):
    """One kind of supervised data: how rows become a model's inputs, and outputs a metric.

    Args:
        processor: the model's tokenizer, or image processor.
        max_length: tokens an example is cut to; None: ``usual_length``.
        classes: names of a classifier's classes in the order of its outputs; None: as `learn` finds them.
    """

    name: ClassVar[str]
    auto_class: ClassVar[str]  # transformers' class of models for it
    roles: ClassVar[Mapping[str, str]]  # the columns of a row: what they hold
    optional: ClassVar[frozenset[str]] = frozenset()
    class_column: ClassVar[str | None] = None  # holds names of classes, or lists of them
    fewest_classes: ClassVar[int] = 1
    usual_length: ClassVar[int] = 128  # tokens
    metrics: ClassVar[tuple[Metric, ...]]  # the first is the one to choose by; all read the same contributions

    def __init__(self, processor: Any, max_length: int | None = None, classes: Sequence[str] | None = None) -> None:
        self.processor = processor
        self.max_length = max_length or self.usual_length
        self.classes = list(classes) if classes is not None else None

    @property
    def tokenizer(self) -> Any | None:
        """The processor, where it makes tokens."""
        return None if "image" in self.roles else self.processor

    @classmethod
    def fits(cls, rows: Dataset) -> bool:
        """Whether rows with these columns can be meant for this task, where nobody says."""
        return all(role in rows.column_names for role in cls.roles if role not in cls.optional)

    def check(self, rows: Dataset, where: str) -> Dataset:
        """The rows that have everything, without columns the task does not read. Raises `TaskError`."""
        held = rows.column_names
        for role, what in self.roles.items():
            if role not in held and role not in self.optional:
                raise TaskError(
                    f"{where} has no column {role!r} with the {what}; its columns: {', '.join(held)}. Name the right "
                    f"one: --columns {role}=COLUMN"
                )
        rows = rows.select_columns([role for role in self.roles if role in held])
        for role in _TEXTS & set(rows.column_names):
            if getattr(rows.features[role], "dtype", None) != "string":
                rows = rows.cast_column(role, _text())
        whole = _complete(rows)
        if not len(whole):
            raise TaskError(f"{where}: no row has all of {', '.join(rows.column_names)}")
        return rows if len(whole) == len(rows) else rows.select(whole)

    def learn(self, rows: Dataset) -> None:
        """Take from training rows what the model's head depends on: names of classes. Raises `TaskError`."""
        if self.class_column is None:
            return
        self.classes = self.classes or all_names(rows, self.class_column)
        if len(self.classes) < self.fewest_classes:
            raise TaskError(f"every row has the label {self.classes[0]!r}; a classifier needs two or more")

    def head(self) -> dict[str, Any]:
        """Options of ``from_pretrained`` that make the model's head fit."""
        if self.classes is None:
            return {}
        return {
            "num_labels": len(self.classes),
            "id2label": dict(enumerate(self.classes)),
            "label2id": {name: i for i, name in enumerate(self.classes)},
        }

    @abstractmethod
    def encode(self, rows: Dataset) -> Any:
        """The model's inputs and labels, row by row or window by window: a sequence of dicts, unpadded."""

    @abstractmethod
    def collator(self, model: Any = None) -> Any:
        """From such dicts to a padded batch."""

    @abstractmethod
    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Of a batch's outputs what the metrics need: (rows, anything of fixed length)."""

    def contributions(self, reduced: np.ndarray, rows: Dataset, encoded: Any) -> np.ndarray:
        """What each example contributes to the metrics' sums (examples, k)."""
        return reduced

    def trivial(self, train: Dataset, held_out: Dataset) -> np.ndarray | None:
        """Contributions of an answer that does not look at the inputs, such as the most frequent class."""
        return None


def _text() -> Any:
    from datasets import Value

    return Value("string")


def _complete(rows: Dataset) -> np.ndarray:
    """Indices of the rows that have a value in every column; an empty text is none."""
    import pyarrow
    import pyarrow.compute

    table = rows.with_format("arrow")[:]
    complete = np.ones(len(rows), dtype=bool)
    for column in table.columns:
        complete &= pyarrow.compute.is_valid(column).to_numpy()
        if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
            complete &= pyarrow.compute.fill_null(pyarrow.compute.not_equal(column, ""), False).to_numpy()
    found: np.ndarray = np.flatnonzero(complete)
    return found
