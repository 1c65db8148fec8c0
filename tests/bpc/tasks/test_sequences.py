"""Classes, numbers and sets of labels of texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from bpc.cli.tasks import task_of
from bpc.tasks import TASKS, TaskError


def test_labels_become_places_among_the_classes(tokenizer: Any, rows: Any) -> None:
    data = rows(text=["good", "bad", "a film"], label=["10", "9", "-1"])
    task = TASKS["classification"](tokenizer)
    task.learn(data)
    assert task.classes == ["-1", "9", "10"]
    assert [row["labels"] for row in task.encode(data)] == [2, 1, 0]
    assert task.head()["id2label"] == {0: "-1", 1: "9", 2: "10"}
    with pytest.raises(TaskError, match="label 'x' is not one of -1, 9, 10"):
        task.encode(rows(text=["good"], label=["x"]))
    with pytest.raises(TaskError, match="every row has the label 'x'; a classifier needs two or more"):
        TASKS["classification"](tokenizer).learn(rows(text=["a", "b"], label=["x", "x"]))


def test_a_column_of_classes_brings_their_names_and_order(tokenizer: Any) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["pos", "neg", "none"])})
    data = Dataset.from_dict({"text": ["good", "bad"], "label": [0, 1]}, features=features)
    task = TASKS["classification"](tokenizer)
    task.learn(data)
    assert task.classes == ["pos", "neg", "none"]
    assert task.encode(data)[1]["labels"] == 1


def test_pairs_are_tokenised_together_and_cut_to_the_length(tokenizer: Any, rows: Any) -> None:
    data = rows(text=["the film"], pair=["was good"], label=["pos"])
    whole, cut = (TASKS["classification"](tokenizer, length, ["neg", "pos"]).encode(data)[0] for length in (16, 5))
    assert tokenizer.convert_ids_to_tokens(whole["input_ids"]) == [
        "[CLS]",
        "the",
        "film",
        "[SEP]",
        "was",
        "good",
        "[SEP]",
    ]
    assert whole["labels"] == 1
    assert len(cut["input_ids"]) == 5


def test_the_most_frequent_class_of_training_is_the_trivial_answer(tokenizer: Any, rows: Any) -> None:
    train, held_out = rows(text=["a"] * 3, label=["x", "y", "y"]), rows(text=["a"] * 4, label=["x", "y", "x", "y"])
    found = TASKS["classification"](tokenizer).trivial(train, held_out)
    assert found is not None
    assert found.tolist() == [[0, 1], [1, 1], [0, 1], [1, 1]]


def test_regression_takes_numbers_and_nothing_else(tokenizer: Any, rows: Any) -> None:
    task = TASKS["regression"](tokenizer)
    assert [row["labels"] for row in task.encode(rows(text=["a", "b"], label=["0.5", "3"]))] == [0.5, 3.0]
    assert task.head() == {"num_labels": 1, "problem_type": "regression"}
    for value in ("high", "nan", "inf"):
        with pytest.raises(TaskError, match=f"label '{value}' is no finite number"):
            task.encode(rows(text=["a"], label=[value]))
    sums = task.reduce({"logits": torch.tensor([[2.0], [3.0]])}, {"labels": torch.tensor([1.0, 2.0])})
    assert sums.tolist() == [[2, 1, 4, 1, 2, 1], [3, 2, 9, 4, 6, 1]]


def test_several_labels_come_as_lists_or_with_commas(tokenizer: Any, rows: Any) -> None:
    task = TASKS["multi-label"](tokenizer)
    for labels in ([["plot", "film"], [], ["film"]], ["plot, film", ",", "film"]):
        data = task.check(rows(text=["a", "b", "it"], label=labels), "data")
        task.classes = None
        task.learn(data)
        assert task.classes == ["film", "plot"]
        assert [row["labels"] for row in task.encode(data)] == [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    counts = task.reduce({"logits": logits}, {"labels": torch.tensor([[1.0, 1.0], [0.0, 1.0]])})
    assert counts.tolist() == [[1, 1, 2], [1, 2, 1]]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (["a", "b"], "classification"),
        (["1", "2"], "classification"),
        ([1.0, 2.0], "classification"),
        (["0.5", "2"], "regression"),
        ([0.5, 2.0], "regression"),
        ([["a"], []], "multi-label"),
    ],
)
def test_labels_say_which_task_is_meant(rows: Any, label: list[Any], name: str) -> None:
    assert task_of(None, rows(text=["x", "y"], label=label), "data").name == name


def test_columns_that_are_missing_are_named(tokenizer: Any, rows: Any) -> None:
    task = TASKS["classification"](tokenizer)
    with pytest.raises(TaskError, match=r"data has no column 'label' with the class; its columns: text\. .*label=COL"):
        task.check(rows(text=["a"]), "data")
    with pytest.raises(TaskError, match="no row has all of text, label"):
        task.check(rows(text=["", "a"], label=["x", None]), "data")
