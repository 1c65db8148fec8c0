"""What `bpc shrink` writes, and masks it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForMaskedLM, pipeline

from bpc.dense import load
from bpc.scores.files import multiply_masks, save_masks
from tests.bpc.cli.commands import heads_masks, run


def test_shrink_writes_a_model_that_computes_the_same(model_directory: Path, tmp_path: Path) -> None:
    masks = heads_masks(model_directory)
    save_masks(masks, tmp_path / "masks.safetensors")
    result = run(
        "shrink", "--model", model_directory, "--masks", tmp_path / "masks.safetensors", "--out", tmp_path / "s"
    )
    assert result.exit_code == 0, result.output
    masked = AutoModelForSequenceClassification.from_pretrained(model_directory)
    multiply_masks(masked, masks)
    small: Any = load(tmp_path / "s").module
    inputs = {"input_ids": torch.randint(4, 16, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    torch.testing.assert_close(small(**inputs).logits, masked.eval()(**inputs).logits, rtol=1e-5, atol=1e-6)
    layer = small.bert.encoder.layer[0]
    assert layer.intermediate.dense.out_features == 34
    assert layer.attention.self.value.out_features == 24


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"nope.weight": torch.ones(2, dtype=torch.bool)}, "mask for 'nope.weight'"),
        ({"classifier.weight": torch.ones(3, 3, dtype=torch.bool)}, "mask for 'classifier.weight' has shape (3, 3)"),
        ({"classifier.weight": torch.full((2, 32), 0.5)}, "but a mask file holds bool tensors"),
    ],
)
def test_masks_that_do_not_fit_leave_nothing_behind(
    model_directory: Path, tmp_path: Path, masks: dict[str, torch.Tensor], message: str
) -> None:
    save_file(masks, tmp_path / "masks.safetensors")
    result = run(
        "shrink", "--model", model_directory, "--masks", tmp_path / "masks.safetensors", "--out", tmp_path / "s"
    )
    assert result.exit_code == 1
    assert message in result.output.replace("\n", "")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["masks.pt", "masks.safetensors"])
def test_a_pickle_is_not_read_as_masks(model_directory: Path, tmp_path: Path, name: str) -> None:
    torch.save({"classifier.weight": print}, tmp_path / name)
    result = run("shrink", "--model", model_directory, "--masks", tmp_path / name, "--out", tmp_path / "s")
    assert result.exit_code == 1
    assert "is not unpickled" in result.output.replace("\n", " ")


def test_masks_of_tied_weights_are_given_under_each_name(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertForMaskedLM(config)
    model.save_pretrained(tmp_path / "model")
    mask = torch.ones(20, 16, dtype=torch.bool)
    mask[:, 3] = False
    names = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    save_masks(dict.fromkeys(names, mask), tmp_path / "masks.safetensors")
    out = tmp_path / "small"
    result = run("shrink", "--model", tmp_path / "model", "--masks", tmp_path / "masks.safetensors", "--out", out)
    assert result.exit_code == 0, result.output
    assert (load(out).module.get_parameter(names[0])[:, 3] == 0).all()


def test_a_model_is_not_overwritten_by_its_small_one(model_directory: Path) -> None:
    before = (model_directory / "model.safetensors").read_bytes()
    result = run("shrink", "--model", model_directory, "--out", model_directory)
    assert result.exit_code == 1
    assert "is the model itself" in result.output.replace("\n", "")
    assert (model_directory / "model.safetensors").read_bytes() == before


def test_what_makes_the_inputs_is_kept(model_directory: Path, tmp_path: Path) -> None:
    """So that a pipeline runs on the directory alone."""
    source = tmp_path / "model"
    shutil.copytree(model_directory, source)
    (source / "preprocessor_config.json").write_text('{"size": 8}')
    (source / "training_args.bin").write_text("not this")
    masks = heads_masks(source)
    save_masks(masks, tmp_path / "masks.safetensors")
    result = run(
        "shrink", "--model", source, "--masks", tmp_path / "masks.safetensors", "--out", tmp_path / "s", "--standalone"
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "s" / "preprocessor_config.json").read_text() == '{"size": 8}'
    assert not (tmp_path / "s" / "training_args.bin").exists()
    assert (tmp_path / "s" / "modeling_bpc.py").exists()
    model = AutoModelForSequenceClassification.from_pretrained(source)
    multiply_masks(model, masks)
    tokenizer = AutoTokenizer.from_pretrained(source)
    texts = ["the film was good", "awful plot"]
    expected = pipeline("text-classification", model=model.eval(), tokenizer=tokenizer)(texts)
    found = pipeline("text-classification", str(tmp_path / "s"))(texts)
    for got, wanted in zip(found, expected, strict=True):
        assert got["label"] == wanted["label"]
        assert got["score"] == pytest.approx(wanted["score"], abs=1e-5)
