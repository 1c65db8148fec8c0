"""`bpc oneshot` from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    pipeline,
)

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
                 "--multiple", 1, "--effort", 0.05, "--narrow", "alike")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "target: 50% of the prunable weights" in result.output
    assert "verified: largest difference" in result.output
    small = bpc.load(out).module
    original = AutoModelForSequenceClassification.from_pretrained(model_directory)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in original.parameters())
    assert not list(tmp_path.glob(".small*"))
    assert pipeline("text-classification", str(out))("a good film")[0]["label"]


def test_from_files_to_files(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    result = run("oneshot", "--model", model_directory, "--data", texts, "--out", out, "--target-density", 0.5,
                 "--multiple", 1, "--effort", 0.05, "--stream")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "target: 50% of the prunable weights" in result.output
    assert not list(tmp_path.glob(".small*"))
    small, original = (AutoModelForSequenceClassification.from_pretrained(path) for path in (out, model_directory))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in original.parameters())
    assert {figure["name"] for figure in json.loads((out / "result.json").read_text())["figures"]} >= {"parameters"}


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
        (["--target-speedup", 2, "--stream"], "a speed-up is measured on whole models"),
        (
            ["--target-density", 0.5, "--stream", "--narrow", "alike"],
            "--narrow tries bases of heads on the whole model",
        ),
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
        ("empty.txt", "has no texts"),
        ("labels.csv", "has no column 'text'; its columns: label"),
        ("missing.txt", "is no file"),
    ]:
        result = run("oneshot", "--model", model_directory, "--data", tmp_path / name, "--out", tmp_path / "s",
                     "--target-density", 0.5)  # fmt: skip
        assert result.exit_code == 1, result.output
        assert message in result.output


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_a_folder_of_images(vit: Path, tmp_path: Path) -> None:
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(vit)
    generator = np.random.default_rng(0)
    for index in range(9):
        folder = tmp_path / "images" / f"class {index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (9 + index, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if index % 2 else "RGB").save(folder / f"{index}.png")
    (tmp_path / "images" / "read me.txt").write_text("no image")
    out = tmp_path / "small"
    result = run("oneshot", "--model", vit, "--data", tmp_path / "images", "--out", out, "--samples", 6,
                 "--target-density", 0.5, "--multiple", 1, "--effort", 0.05)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "on 6 calibration examples" in result.output
    assert pipeline("image-classification", str(out))(Image.new("RGB", (20, 20)))[0]["label"]


def test_folders_without_images_and_processors_are_refused(vit: Path, texts: Path, tmp_path: Path) -> None:
    def refused(data: Path) -> str:
        result = run("oneshot", "--model", vit, "--data", data, "--out", tmp_path / "s", "--target-density", 0.5)
        assert result.exit_code == 1, result.output
        return result.output

    assert "is no folder; the model reads images" in refused(texts)
    images = tmp_path / "images"
    images.mkdir()
    assert "holds no images" in refused(images)
    (images / "a.png").write_bytes(b"no image")
    assert "the image processor" in refused(images)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(vit)
    assert "a.png cannot be read as an image" in refused(images)


def test_a_model_of_sounds_is_sent_to_python(texts: Path, tmp_path: Path) -> None:
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, conv_dim=(8,),
        conv_stride=(4,), conv_kernel=(4,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, vocab_size=8,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(tmp_path / "sounds")
    result = run("oneshot", "--model", tmp_path / "sounds", "--data", texts, "--out", tmp_path / "s",
                 "--target-density", 0.5)  # fmt: skip
    assert result.exit_code == 1
    assert "reads input_values, not texts or images: call bpc.prune_once() from Python" in result.output
