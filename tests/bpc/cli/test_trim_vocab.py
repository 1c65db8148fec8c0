"""`bpc trim-vocab` from the shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bpc.dense import load
from bpc.scores.files import save_masks
from examples.tweets.data import encoder_directory
from tests.bpc.cli.commands import heads_masks, run

TEXTS = ["the film was good", "the plot was bad"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS) + "\n")
    return path


def test_a_directory_becomes_a_smaller_one(model_directory: Path, file: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "more.csv"
    held_out.write_text("id,words\n1,the film was awful\n2,the plot\n")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "bpc", "trim-vocab", "--model", model_directory, "--texts", file, "--out", out]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tokens      16 -> 10" in done.stdout
    assert "covered     100.000% of 8 tokens, 100.00% of 2 texts wholly" in done.stdout
    small, read = AutoModelForSequenceClassification.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    model = AutoModelForSequenceClassification.from_pretrained(model_directory)
    full = AutoTokenizer.from_pretrained(model_directory)
    with torch.no_grad():
        before, after = (m(**t(TEXTS, return_tensors="pt")).logits for m, t in ((model, full), (small, read)))
    assert torch.equal(before, after)


def test_held_out_texts_are_told_of(model_directory: Path, file: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "more.csv"
    held_out.write_text("id,text\n1,the film was awful\n2,the plot\n")
    result = run(
        "trim-vocab", "--model", model_directory, "--texts", file, "--out", tmp_path / "o", "--check", held_out
    )
    assert result.exit_code == 0, result.output
    assert "held out    83.333% of 6 tokens, 50.00% of 2 texts wholly" in result.output


def test_what_bpc_wrote_stays_what_bpc_reads(model_directory: Path, file: Path, tmp_path: Path) -> None:
    save_masks(heads_masks(model_directory), tmp_path / "m.safetensors")
    small, out = tmp_path / "small", tmp_path / "out"
    masks = ("--masks", tmp_path / "m.safetensors")
    assert run("shrink", "--model", model_directory, *masks, "--out", small).exit_code == 0
    result = run("trim-vocab", "--model", small, "--texts", file, "--out", out)
    assert result.exit_code == 0, result.output
    dense, before = load(out), load(small)
    full, read = AutoTokenizer.from_pretrained(small), AutoTokenizer.from_pretrained(out)
    assert len(read) == 10
    expected = before(**full(TEXTS, return_tensors="pt")).logits
    torch.testing.assert_close(dense(**read(TEXTS, return_tensors="pt")).logits, expected, rtol=1e-5, atol=1e-6)
    assert run("export", "--model", out, "--out", tmp_path / "small.onnx").exit_code == 0


def test_an_encoder_of_sentences_stays_one(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("trim-vocab", "--model", encoder_directory(), "--texts", file, "--out", out, "--characters", "used")
    assert result.exit_code == 0, result.output
    before, after = (SentenceTransformer(str(d), device="cpu") for d in (encoder_directory(), out))
    assert [type(part).__name__ for part in after] == ["Transformer", "Pooling", "Normalize"]
    assert torch.equal(torch.tensor(before.encode(TEXTS)), torch.tensor(after.encode(TEXTS)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-tokens", 3), "3 tokens are too few"),
        (("--text", "words"), ""),  # a .txt has no columns
        (("--check", "no.csv"), "no.csv"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    model_directory: Path, file: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    result = run("trim-vocab", "--model", model_directory, "--texts", file, "--out", tmp_path / "out", *options)
    assert result.exit_code == (1 if message else 0)
    assert message in result.output
    assert (tmp_path / "out").exists() == (not message)
