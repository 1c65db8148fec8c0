"""A class for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from bpc.tasks.classes import names_in, positions
from bpc.tasks.score import Metric, mean
from bpc.tasks.sequences import most_frequent, right_of_one
from bpc.tasks.task import Task, TaskError

if TYPE_CHECKING:
    from datasets import Dataset


class ImageClassification(Task):
    """One of several classes for an image; a folder with a folder for each class, for instance."""

    name = "image-classification"
    auto_class = "AutoModelForImageClassification"
    roles: ClassVar = {"image": "image", "label": "class"}
    class_column, fewest_classes = "label", 2
    metrics = (Metric("accuracy", mean),)

    def encode(self, rows: Dataset) -> Any:
        return _Images(self.processor, rows, positions(names_in(rows, "label"), self.classes))

    def collator(self, model: Any = None) -> Any:
        from transformers import DefaultDataCollator

        return DefaultDataCollator()

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        return right_of_one(outputs["logits"], batch["labels"])

    def trivial(self, train: Dataset, held_out: Dataset) -> np.ndarray | None:
        return most_frequent(train, held_out)


class _Images(TorchDataset[dict[str, Any]]):
    """Images prepared on access: (channels, height, width), and a class each."""

    def __init__(self, processor: Any, rows: Dataset, labels: Sequence[int]) -> None:
        self.processor, self.rows, self.labels = processor, rows, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            image = self.rows[index]["image"].convert("RGB")
        except (OSError, SyntaxError) as error:  # PIL's, of damaged files
            raise TaskError(f"image {index} cannot be read: {error}") from error
        prepared: torch.Tensor = self.processor(image, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": prepared, "labels": self.labels[index]}
