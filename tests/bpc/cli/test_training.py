"""Which classifier a run starts from, and which may teach it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

import bpc
from bpc.cli.models import load_tokenizer
from bpc.cli.tasks import class_order
from bpc.cli.training import load_for, load_teacher
from bpc.tasks import TASKS, Task
from bpc.terminal.errors import CommandError


@pytest.fixture
def named(model_directory: Path, tmp_path: Path) -> Path:
    """Classes in another order than the alphabet's."""
    model = AutoModelForSequenceClassification.from_pretrained(model_directory, id2label={0: "pos", 1: "neg"})
    model.save_pretrained(tmp_path / "named")
    return tmp_path / "named"


def classifying(directory: Path, *classes: str) -> Task:
    return TASKS["classification"](load_tokenizer(directory), classes=classes)


def test_a_fine_tuned_model_keeps_the_order_of_its_classes(named: Path, model_directory: Path) -> None:
    assert class_order(named, ["neg", "pos"]) == ["pos", "neg"]
    assert class_order(model_directory, ["neg", "pos"]) == ["neg", "pos"]


def test_new_heads_are_named_and_the_rest_is_read(named: Path, model_directory: Path) -> None:
    _, new = load_for(classifying(model_directory, "pos", "neg"), named)
    assert new == []
    model, new = load_for(classifying(model_directory, "a", "b", "c"), named)
    assert new == ["classifier.bias", "classifier.weight"]
    assert model.config.num_labels == 3  # type: ignore[union-attr]


def test_a_teacher_knows_the_classes(named: Path, model_directory: Path, tmp_path: Path) -> None:
    load_teacher(classifying(model_directory, "pos", "neg"), named)
    with pytest.raises(CommandError, match="orders its classes pos, neg, the model neg, pos"):
        load_teacher(classifying(model_directory, "neg", "pos"), named)
    AutoModel.from_pretrained(model_directory).save_pretrained(tmp_path / "headless")
    with pytest.raises(CommandError, match=r"no model for classification of the 2 labels neg, pos: .*classifier\.bias"):
        load_teacher(classifying(model_directory, "neg", "pos"), tmp_path / "headless")


def test_a_small_model_can_be_pruned_further(model_directory: Path, tmp_path: Path) -> None:
    program = bpc.compile(AutoModelForSequenceClassification.from_pretrained(model_directory), "struct")
    with torch.no_grad():
        for scores in program.score_parameters():
            scores[:2] = -10.0
    program.shrink().save_pretrained(tmp_path / "small")
    model, new = load_for(classifying(model_directory, "neg", "pos"), tmp_path / "small")
    assert new == []
    assert model.bert.encoder.layer[0].intermediate.dense.out_features == 62  # type: ignore[union-attr]
    with pytest.raises(CommandError, match="is a small model with 2 classes, the data has 3 labels"):
        load_for(classifying(model_directory, "a", "b", "c"), tmp_path / "small")
