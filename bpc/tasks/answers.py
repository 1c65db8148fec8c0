"""A span of a text as the answer to a question, in the format of SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from bpc.tasks.score import Metric
from bpc.tasks.task import Task, TaskError

if TYPE_CHECKING:
    from datasets import Dataset

CANDIDATES = 20  # starts and ends of a window that are looked at
LONGEST = 30  # tokens of an answer, as for SQuAD, where none of the training data is longer
STRIDE = 3  # windows of a long text overlap by a third of their length


class QuestionAnswering(Task):
    """Where in a text the answer stands: exact match and F1 of words, the best over the answers given (SQuAD).

    A text that is too long for one window becomes several that overlap, and the best span of all is taken. Questions
    without an answer (SQuAD 2) are answered by the first token.
    """

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    roles: ClassVar = {"question": "question", "context": "text", "answers": "{text: [...], answer_start: [...]}"}
    metrics = (
        Metric("F1", lambda sums: sums[..., 1] / sums[..., 2]),
        Metric("exact match", lambda sums: sums[..., 0] / sums[..., 2]),
    )
    usual_length = 384
    longest = LONGEST

    def check(self, rows: Dataset, where: str) -> Dataset:
        rows = super().check(rows, where)
        for number, row in enumerate(rows, 1):
            answers = row["answers"]
            if not isinstance(answers, dict) or not {"text", "answer_start"} <= answers.keys():
                raise TaskError(f'{where}, row {number}: answers are {{"text": [...], "answer_start": [...]}}')
            for text, start in zip(answers["text"], answers["answer_start"], strict=True):
                if not 0 <= start <= len(row["context"]) - len(text):
                    raise TaskError(f"{where}, row {number}: the answer {text!r} at {start} is outside of the context")
        return rows

    def learn(self, rows: Dataset) -> None:
        if not getattr(self.processor, "is_fast", False):
            raise TaskError("question-answering needs a fast tokenizer (tokenizer.json): it knows where tokens stand")
        answers = [text for row in rows["answers"] for text in row["text"]]
        if answers:
            self.longest = max(LONGEST, *map(len, self.processor(answers, add_special_tokens=False)["input_ids"]))

    def encode(self, rows: Dataset) -> Any:
        return _Windows(self, rows)

    def collator(self, model: Any = None) -> Any:
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(self.processor)

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Scores and places of the best starts, then of the best ends, then the score of no answer."""
        parts, none = [], torch.zeros(len(batch["input_ids"]), 1)
        for name in ("start_logits", "end_logits"):
            logits = outputs[name].float().cpu()
            best = logits.topk(min(CANDIDATES, logits.shape[1]), -1)
            missing = CANDIDATES - best.values.shape[1]
            parts += [torch.nn.functional.pad(best.values, (0, missing), value=-1e9)]
            parts += [torch.nn.functional.pad(best.indices.float(), (0, missing))]
            none = none + logits[:, :1]
        return torch.cat([*parts, none], -1)

    def contributions(self, reduced: np.ndarray, rows: Dataset, encoded: Any) -> np.ndarray:
        """(exact matches, F1, questions) of every question."""
        answerable = all(row["text"] for row in rows["answers"])
        best: dict[int, tuple[float, str]] = {}
        contexts = rows["context"]
        for window, values in enumerate(reduced):
            example, offsets = encoded.examples[window], encoded.offsets[window]
            score, span = _best_span(values, offsets, self.longest, may_be_none=not answerable)
            if span is not None and score > best.get(example, (-np.inf, ""))[0]:
                best[example] = (score, contexts[example][span[0] : span[1]])
        found = []
        for example, answers in enumerate(rows["answers"]):
            said = best.get(example, (0.0, ""))[1]
            wanted = answers["text"] or [""]
            exact, overlap = (max(judge(said, one) for one in wanted) for judge in (exact_match, word_f1))
            found.append([exact, overlap, 1.0])
        return np.array(found)


class _Windows(TorchDataset[dict[str, Any]]):
    """Every window's ids and, as labels, the tokens where the first answer starts and ends (0, 0: not in it)."""

    def __init__(self, task: QuestionAnswering, rows: Dataset) -> None:
        length, answers = task.max_length, rows["answers"]
        try:
            encoded = task.processor(
                [text.strip() for text in rows["question"]],
                list(rows["context"]),
                truncation="only_second",
                max_length=length,
                stride=length // STRIDE,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
        except Exception as error:  # tokenizers raises its own, of a question that fills the window
            raise TaskError(f"a question leaves no room for its text in {length} tokens: {error}") from error
        self.examples: list[int] = encoded.pop("overflow_to_sample_mapping")
        spans = encoded.pop("offset_mapping")
        self.inputs = dict(encoded)
        # Outside of the text there is no place.
        self.offsets = [
            [span if part == 1 else None for span, part in zip(row, encoded.sequence_ids(i), strict=True)]
            for i, row in enumerate(spans)
        ]
        self.labels = [_place(answers[e], row) for e, row in zip(self.examples, self.offsets, strict=True)]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        start, end = self.labels[index]
        window = {name: values[index] for name, values in self.inputs.items()}
        return {**window, "start_positions": start, "end_positions": end}


def _place(answers: Mapping[str, Any], offsets: list[Any]) -> tuple[int, int]:
    if not answers["text"]:
        return 0, 0
    first, text = int(answers["answer_start"][0]), answers["text"][0]
    last = first + len(text)
    inside = [i for i, span in enumerate(offsets) if span is not None and span[0] < last and span[1] > first]
    placed = [i for i, span in enumerate(offsets) if span is not None]
    if not inside or offsets[placed[0]][0] > first or offsets[placed[-1]][1] < last:
        return 0, 0
    return inside[0], inside[-1]


def _best_span(
    values: np.ndarray, offsets: list[Any], longest: int, may_be_none: bool
) -> tuple[float, tuple[int, int] | None]:
    start_scores, starts, end_scores, ends = np.split(values[:-1], 4)
    best, found = (float(values[-1]), (0, 0)) if may_be_none else (-np.inf, None)
    for a, i in zip(start_scores, starts.astype(int), strict=True):
        for b, j in zip(end_scores, ends.astype(int), strict=True):
            if i <= j < min(i + longest, len(offsets)) and offsets[i] and offsets[j] and a + b > best:
                best, found = float(a + b), (offsets[i][0], offsets[j][1])
    return best, found


def exact_match(said: str, wanted: str) -> float:
    """Whether both are the same words, by SQuAD's rules: no case, punctuation or articles."""
    return float(_words(said) == _words(wanted))


def word_f1(said: str, wanted: str) -> float:
    """F1 of the words of both, by the same rules; of no words, whether both have none."""
    mine, theirs = _words(said), _words(wanted)
    if not mine or not theirs:
        return float(mine == theirs)
    shared = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * shared / (len(mine) + len(theirs))


def _words(text: str) -> list[str]:
    plain = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()
