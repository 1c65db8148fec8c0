"""`bpc oneshot` from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, ViTConfig, ViTForImageClassification, pipeline

import bpc
from tests.bpc.cli.commands import run


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    words = ["the", "a", "good", "bad", "film", "movie"]
    lines = [" ".join(words[(i * k) % 6] for k in range(1, 3 + i % 5)) for i in range(24)]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(lines))
    return path


def test_a_directory_and_texts_become_a_smaller_directory(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    result = run("oneshot", "--model", model_directory, "--data", texts, "--out", out, "--target-density", 0.5,
                 "--multiple", 1, "--effort", 0.05)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "target: 50% of the prunable weights" in result.output
    assert "verified: largest difference" in result.output
    small = bpc.load(out).module
    original = AutoModelForSequenceClassification.from_pretrained(model_directory)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in original.parameters())
    assert not list(tmp_path.glob(".small*"))
    assert pipeline("text-classification", str(out))("a good film")[0]["label"]


def test_columns_of_a_table_and_pairs(model_directory: Path, tmp_path: Path) -> None:
    rows = [{"premise": "a good film", "hypothesis": "the movie"}, {"premise": "bad", "hypothesis": "a film"}] * 6
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    result = run("oneshot", "--model", model_directory, "--data", path, "--text", "premise", "--pair", "hypothesis",
                 "--out", tmp_path / "s", "--target-params", 0.9, "--multiple", 1, "--effort", 0.05)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "on 12 calibration examples" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "a target is one of speedup=, params=, density= and bytes=; got none"),
        (["--target-density", 0.5, "--target-params", 0.5], "got params, density"),
        (["--target-params", 0.001], "that stay when every head and dim has gone"),
        (["--target-speedup", 2, "--runtime", "abacus"], "--runtime abacus"),
        (["--target-speedup", 2, "--shape", "8"], "--shape 8"),
        (["--target-density", 0.5, "--protect", "nope"], "'nope' matches no weight"),
    ],
)
def test_targets_that_cannot_be_are_refused(
    model_directory: Path, texts: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    result = run("oneshot", "--model", model_directory, "--data", texts, "--out", tmp_path / "s", *options)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "s").exists()


def test_files_of_no_texts_are_refused(model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "labels.csv").write_text("label\n1\n0\n")
    for name, message in [
        ("empty.txt", "has no lines of text"),
        ("labels.csv", "has no column 'text'; its columns: label"),
        ("missing.txt", "is no file"),
    ]:
        result = run("oneshot", "--model", model_directory, "--data", tmp_path / name, "--out", tmp_path / "s",
                     "--target-density", 0.5)  # fmt: skip
        assert result.exit_code == 1, result.output
        assert message in result.output


def test_a_model_of_images_is_sent_to_python(texts: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    result = run("oneshot", "--model", tmp_path / "vit", "--data", texts, "--out", tmp_path / "s",
                 "--target-density", 0.5)  # fmt: skip
    assert result.exit_code == 1
    assert "reads pixel_values, not texts: call bpc.prune_once() from Python" in result.output
