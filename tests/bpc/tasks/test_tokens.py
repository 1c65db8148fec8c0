"""Tags of words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from seqeval.metrics import f1_score

from bpc.tasks import TASKS, TaskError
from bpc.tasks.score import scored

TOKENS = [["ada", "and", "bob"], ["in", "london"]]
TAGS = [["B-PER", "O", "B-PER"], ["O", "B-LOC"]]


def test_the_first_token_of_a_word_has_its_tag(tokenizer: Any, rows: Any) -> None:
    data = rows(tokens=[["ada", "the.film"], ["in"]], tags=[["B-PER", "O"], ["O"]])  # "the", ".", "film": one word
    task = TASKS["token-classification"](tokenizer)
    task.learn(data)
    assert task.classes == ["B-PER", "O"]
    encoded = task.encode(data)
    assert encoded[0]["labels"] == [-100, 0, 1, -100, -100, -100]
    batch = task.collator()([encoded[0], encoded[1]])
    assert batch["labels"].tolist()[1] == [-100, 1, -100, -100, -100, -100]


def test_whole_entities_are_counted_as_seqeval_counts_them(tokenizer: Any, rows: Any) -> None:
    data = rows(tokens=TOKENS, tags=TAGS)
    task = TASKS["token-classification"](tokenizer, classes=["O", "B-PER", "I-PER", "B-LOC"])
    batch = task.collator()(list(task.encode(data)))
    said = torch.tensor([[0, 1, 2, 1, 0], [0, 0, 3, 0, 0]])  # one entity too long
    logits = torch.nn.functional.one_hot(said, 4).float()
    counts = task.reduce({"logits": logits}, batch)
    assert counts.tolist() == [[1, 2, 2], [1, 1, 1]]
    expected = f1_score(TAGS, [["B-PER", "I-PER", "B-PER"], ["O", "B-LOC"]])
    assert scored(task.metrics[0], counts.numpy()).value == pytest.approx(expected)


def test_lists_that_do_not_fit_are_refused_with_their_row(tokenizer: Any, rows: Any) -> None:
    task = TASKS["token-classification"](tokenizer)
    with pytest.raises(TaskError, match="data, row 2: 1 words have 2 tags"):
        task.check(rows(tokens=[["a"], ["b"]], tags=[["O"], ["O", "O"]]), "data")
    with pytest.raises(TaskError, match="row 1: tokens and tags are lists"):
        task.check(rows(tokens=["a b"], tags=["O O"]), "data")


def test_a_word_by_its_most_frequent_tag_is_the_trivial_answer(tokenizer: Any, rows: Any) -> None:
    task = TASKS["token-classification"](tokenizer)
    found = task.trivial(
        rows(tokens=TOKENS, tags=TAGS), rows(tokens=[["ada", "london", "plot"]], tags=[["B-PER", "O", "O"]])
    )
    assert found is not None
    assert found.tolist() == [[1, 2, 1]]
