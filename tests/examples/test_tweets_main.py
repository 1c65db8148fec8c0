"""The demo is `bpc prune` with a recipe."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from examples.tweets.__main__ import SERVE, main, write_csv
from examples.tweets.data import LABELS, Tweet, encoder_directory


def test_what_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    tweets = [Tweet('late, "again"\nand again', 0), Tweet("NA", 2)]
    with write_csv(tweets, tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["text"], LABELS.index(row["label"])) for row in rows] == [(t.text, t.label) for t in tweets]


def test_the_recipe_fits_the_command_and_the_tweets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "tiny")
    BertTokenizerFast.from_pretrained(encoder_directory()).save_pretrained(tmp_path / "tiny")
    out = tmp_path / "out"
    assert main(["--out", str(out), "--model", str(tmp_path / "tiny"), "--dry-run", "--full"]) == 0
    said = capsys.readouterr().out
    assert "classification: 32,392 examples, 4,000 held out" in said
    assert "fine-tuning 1, pruning 2, filling 1.5" in said
    assert not (out / "small").exists()
    compile(SERVE.format(out=out), "serve", "exec")
