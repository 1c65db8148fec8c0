"""One answer for a text or a pair of texts: a class, a number, or several labels."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from bpc.tasks.classes import names_in, positions
from bpc.tasks.score import Metric, correlation, f1, mean
from bpc.tasks.task import Task, TaskError

if TYPE_CHECKING:
    from datasets import Dataset

AT_ONCE = 1000  # rows given to a tokenizer
_TEXTS = {"text": "text", "pair": "second text"}


class _Texts(Task):
    """What the three have in common: texts, and a tokenizer that pads them."""

    auto_class = "AutoModelForSequenceClassification"
    optional = frozenset({"pair"})

    def encode(self, rows: Dataset) -> Any:
        return _Encoded(rows, self.labels(rows), self.processor, self.max_length)

    def collator(self, model: Any = None) -> Any:
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(self.processor)

    @abstractmethod
    def labels(self, rows: Dataset) -> list[Any]:
        """Of every row what the model's loss takes. Raises `TaskError`."""


class _Encoded(TorchDataset[dict[str, Any]]):
    """Rows tokenised at once; one dict of unpadded ids and a label each. All ids lie in one array: lists take 8 times
    as much memory."""

    def __init__(self, rows: Dataset, labels: Sequence[Any], tokenizer: Any, length: int) -> None:
        self.labels = labels
        parts: dict[str, list[np.ndarray]] = {}
        counts = [0]
        pairs = "pair" in rows.column_names
        for chunk in rows.iter(AT_ONCE):
            texts = [chunk["text"], *([chunk["pair"]] if pairs else ())]
            encoded = tokenizer(*texts, truncation=True, max_length=length)
            counts += map(len, encoded["input_ids"])
            for name, values in encoded.items():
                parts.setdefault(name, []).append(np.fromiter(chain.from_iterable(values), np.int32))
        self.values = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        self.offsets = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self.offsets[index % len(self)], self.offsets[index % len(self) + 1]
        return {**{n: v[start:end].tolist() for n, v in self.values.items()}, "labels": self.labels[index]}


class Classification(_Texts):
    """One of several classes, for a text or a pair."""

    name = "classification"
    roles: ClassVar = {**_TEXTS, "label": "class"}
    class_column, fewest_classes = "label", 2
    metrics = (Metric("accuracy", mean),)

    @classmethod
    def fits(cls, rows: Dataset) -> bool:
        return super().fits(rows) and not (_are_lists(rows) or _are_fractions(rows))

    def head(self) -> dict[str, Any]:
        return {**super().head(), "problem_type": "single_label_classification"}

    def labels(self, rows: Dataset) -> list[Any]:
        return positions(names_in(rows, "label"), self.classes)

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        return right_of_one(outputs["logits"], batch["labels"])

    def trivial(self, train: Dataset, held_out: Dataset) -> np.ndarray | None:
        return most_frequent(train, held_out)


class Regression(_Texts):
    """A number for a text or a pair, learnt by its squared error and judged by its correlation."""

    name = "regression"
    roles: ClassVar = {**_TEXTS, "label": "number"}
    metrics = (Metric("Pearson's r", correlation, share=False),)

    @classmethod
    def fits(cls, rows: Dataset) -> bool:
        return super().fits(rows) and not _are_lists(rows) and _are_fractions(rows)

    def head(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def labels(self, rows: Dataset) -> list[Any]:
        return [_number(value) for value in rows["label"]]

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        x, y = outputs["logits"].double().flatten(), batch["labels"].double().flatten()
        return torch.stack([x, y, x * x, y * y, x * y, torch.ones_like(x)], -1)


class MultiLabel(_Texts):
    """Any number of labels for a text or a pair: lists, or names with commas between them; micro-averaged F1."""

    name = "multi-label"
    roles: ClassVar = {**_TEXTS, "label": "list of labels"}
    class_column = "label"
    metrics = (Metric("micro-F1", f1),)

    @classmethod
    def fits(cls, rows: Dataset) -> bool:
        return super().fits(rows) and _are_lists(rows)

    def check(self, rows: Dataset, where: str) -> Dataset:
        rows = super().check(rows, where)
        if _are_lists(rows):
            return rows
        lists = [[part.strip() for part in str(value).split(",") if part.strip()] for value in rows["label"]]
        return rows.remove_columns("label").add_column("label", lists)

    def head(self) -> dict[str, Any]:
        return {**super().head(), "problem_type": "multi_label_classification"}

    def labels(self, rows: Dataset) -> list[Any]:
        found = []
        for names in names_in(rows, "label"):
            given = set(positions(names, self.classes))
            found.append([float(i in given) for i in range(len(self.classes or ()))])
        return found

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        said, real = outputs["logits"] > 0, batch["labels"] > 0.5
        return torch.stack([(said & real).sum(-1), said.sum(-1), real.sum(-1)], -1).double()


def right_of_one(logits: Tensor, labels: Tensor) -> Tensor:
    """(right answers, answers) of every row."""
    right = (logits.argmax(-1) == labels).double()
    return torch.stack([right, torch.ones_like(right)], -1)


def most_frequent(train: Dataset, held_out: Dataset) -> np.ndarray:
    """(right answers, answers) of whoever always says the class that is most frequent in training."""
    usual = Counter(names_in(train, "label")).most_common(1)[0][0]
    return np.array([[name == usual, 1.0] for name in names_in(held_out, "label")], dtype=float)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise TaskError(f"label {value!r} is no finite number, which regression needs")
    return number


def _are_lists(rows: Dataset) -> bool:
    return isinstance(rows[0]["label"], list)


def _are_fractions(rows: Dataset) -> bool:
    """Whether labels are numbers of which some are no whole ones."""
    try:
        values = [float(value) for value in rows["label"] if value not in (None, "")]
    except (TypeError, ValueError):
        return False
    return any(value % 1 for value in values)
