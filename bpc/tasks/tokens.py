"""A class for every word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from bpc.tasks.classes import names_in, positions
from bpc.tasks.score import Metric, f1
from bpc.tasks.task import IGNORED, Task, TaskError

if TYPE_CHECKING:
    from datasets import Dataset


class TokenClassification(Task):
    """A tag for every word; entities (B-, I- tags) by micro-averaged F1 of whole spans, where all of them must fit.

    The first token of a word has its tag, and the others none, as in the papers on BERT. Tags without B- and I- are
    spans too: a run of one tag other than O is one.
    """

    name = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    roles: ClassVar = {"tokens": "list of words", "tags": "list of their tags"}
    class_column = "tags"
    metrics = (Metric("entity F1", f1),)

    def check(self, rows: Dataset, where: str) -> Dataset:
        rows = super().check(rows, where)
        for number, row in enumerate(rows, 1):
            words, tags = row["tokens"], row["tags"]
            if not (isinstance(words, list) and isinstance(tags, list)):
                raise TaskError(f"{where}, row {number}: tokens and tags are lists of words and of their tags")
            if len(words) != len(tags):
                raise TaskError(f"{where}, row {number}: {len(words)} words have {len(tags)} tags")
        return rows

    def learn(self, rows: Dataset) -> None:
        super().learn(rows)
        if not getattr(self.processor, "is_fast", False):
            raise TaskError("token-classification needs a fast tokenizer (tokenizer.json), which knows words")

    def encode(self, rows: Dataset) -> Any:
        return _Words(self, rows)

    def collator(self, model: Any = None) -> Any:
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(self.processor)

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """(true positives, predicted, real) spans of every row."""
        from seqeval.metrics.sequence_labeling import get_entities

        assert self.classes is not None
        said, real = outputs["logits"].argmax(-1), batch["labels"]
        counts = []
        for mine, truth in zip(said, real, strict=True):
            kept = truth != IGNORED
            found, wanted = (set(get_entities([self.classes[int(i)] for i in tags[kept]])) for tags in (mine, truth))
            counts.append([len(found & wanted), len(found), len(wanted)])
        return torch.tensor(counts, dtype=torch.float64)

    def trivial(self, train: Dataset, held_out: Dataset) -> np.ndarray | None:
        """Each word gets the tag it most often has in training, O if it was never seen."""
        from collections import Counter, defaultdict

        from seqeval.metrics.sequence_labeling import get_entities

        seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for tokens, names in zip(train["tokens"], names_in(train, "tags"), strict=True):
            for token, name in zip(tokens, names, strict=True):
                seen[token][name] += 1
        usual = {token: counted.most_common(1)[0][0] for token, counted in seen.items()}
        counts = []
        for tokens, names in zip(held_out["tokens"], names_in(held_out, "tags"), strict=True):
            found, wanted = set(get_entities([usual.get(t, "O") for t in tokens])), set(get_entities(names))
            counts.append([len(found & wanted), len(found), len(wanted)])
        return np.array(counts, dtype=float)


class _Words(TorchDataset[dict[str, Any]]):
    """Lists of words tokenised on access, with a label for the first token of each."""

    def __init__(self, task: TokenClassification, rows: Dataset) -> None:
        self.task, self.rows = task, rows
        tags = names_in(rows, "tags")
        self.labels = [positions(row, task.classes) for row in tags]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        words = [str(word) for word in self.rows[index]["tokens"]]
        encoded = self.task.processor(words, is_split_into_words=True, truncation=True, max_length=self.task.max_length)
        labels, before = [], None
        for word in encoded.word_ids():
            labels.append(IGNORED if word is None or word == before else self.labels[index][word])
            before = word
        return {**encoded, "labels": labels}
