"""Answers as spans of texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bpc.tasks import TASKS, TaskError
from bpc.tasks.answers import exact_match, word_f1
from bpc.tasks.evaluate import evaluate


def asked(rows: Any, context: str, *answers: str, question: str = "who wrote it") -> Any:
    found = {"text": list(answers), "answer_start": [context.index(answer) for answer in answers]}
    return rows(question=[question], context=[context], answers=[found])


def pointing_at_labels(task: Any, data: Any) -> Any:
    """A model that is sure of every window's labels, and of windows without the answer that it is not there."""
    windows = task.encode(data)
    labels = {tuple(w["input_ids"]): (w["start_positions"], w["end_positions"]) for w in windows}

    def run(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        starts, ends = (torch.zeros(inputs["input_ids"].shape) for _ in range(2))
        for row, (ids, real) in enumerate(zip(inputs["input_ids"], inputs["attention_mask"], strict=True)):
            start, end = labels[tuple(ids[real.bool()].tolist())]
            starts[row, start] = ends[row, end] = 5.0 if start else 1.0
        return {"start_logits": starts, "end_logits": ends}

    return run


def test_the_answer_is_found_in_the_window_that_holds_it(tokenizer: Any, rows: Any) -> None:
    context = "the film was good " * 6 + "ada wrote it in london and the plot was bad"
    data = asked(rows, context, "ada wrote it")
    task = TASKS["question-answering"](tokenizer, max_length=16)
    task.learn(data)
    windows = task.encode(data)
    assert len(windows) > 3
    assert max(len(window["input_ids"]) for window in windows) == 16
    assert 0 < sum(start > 0 for start, _ in windows.labels) < len(windows)
    found, exact = evaluate(task, pointing_at_labels(task, data), data, batch_size=2)
    assert (found.value, exact.value) == (1.0, 1.0)


def test_questions_without_an_answer_are_answered_by_none(tokenizer: Any, rows: Any) -> None:
    data = asked(rows, "the film was good")
    task = TASKS["question-answering"](tokenizer, max_length=16)
    task.learn(data)
    assert task.encode(data).labels == [(0, 0)]
    assert evaluate(task, pointing_at_labels(task, data), data)[0].value == 1.0


@pytest.mark.parametrize(
    ("said", "wanted", "exact", "overlap"),
    [
        ("The Film.", "film", 1, 1),
        ("good film", "the film", 0, 2 / 3),
        ("", "", 1, 1),
        ("", "film", 0, 0),
        ("a", "b", 0, 0),
    ],
)
def test_words_are_compared_by_squads_rules(said: str, wanted: str, exact: float, overlap: float) -> None:
    assert exact_match(said, wanted) == exact
    assert word_f1(said, wanted) == pytest.approx(overlap)


def test_rows_that_are_not_squads_are_refused(tokenizer: Any, rows: Any) -> None:
    task = TASKS["question-answering"](tokenizer)
    wrong = rows(question=["who"], context=["ada"], answers=[{"text": ["bob and ada"], "answer_start": [0]}])
    with pytest.raises(TaskError, match="row 1: the answer 'bob and ada' at 0 is outside of the context"):
        task.check(wrong, "data")
    with pytest.raises(TaskError, match="row 1: answers are"):
        task.check(rows(question=["who"], context=["ada"], answers=["ada"]), "data")
    long = asked(rows, "ada wrote it", "ada", question="who wrote it " * 10)
    with pytest.raises(TaskError, match="leaves no room for its text in 16 tokens"):
        TASKS["question-answering"](tokenizer, max_length=16).encode(long)
