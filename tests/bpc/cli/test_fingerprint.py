"""``--resume`` goes on with the run that was started, and with no other."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import bpc.train
from bpc.cli.fingerprint import check_same_run, digest_of_rows
from bpc.terminal.errors import CommandError
from tests.bpc.cli.commands import prune


@pytest.fixture
def stopped(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run that Ctrl-C stopped at its second step."""
    step = bpc.train.Trainer.training_step
    calls: list[None] = []

    def interrupted(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(bpc.train.Trainer, "training_step", interrupted)
        assert prune(model_directory, texts, tmp_path / "out", spec_file).exit_code == 130
    return tmp_path / "out"


def test_another_run_is_not_gone_on_with(
    stopped: Path, model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path
) -> None:
    lines = texts.read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join(lines[:-1]) + "\n")
    relabelled = [line.replace(",neg", ",poor") for line in lines]
    (tmp_path / "relabelled.csv").write_text("\n".join(relabelled) + "\n")
    other = tmp_path / "other"
    AutoTokenizer.from_pretrained(model_directory).save_pretrained(other)
    model = AutoModelForSequenceClassification.from_pretrained(model_directory)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[5] += 1e-3
    model.save_pretrained(other)
    for arguments, named in (
        ((model_directory, tmp_path / "fewer.csv"), "data"),
        ((model_directory, tmp_path / "relabelled.csv"), "labels"),
        ((other, texts), "base weights"),
    ):
        result = prune(*arguments, stopped, spec_file, "--resume")
        assert result.exit_code == 1
        assert "was started with other" in result.output.replace("\n", " ")
        assert named in result.output
    result = prune(model_directory, texts, stopped, spec_file, "--resume", "--epochs", 7)
    assert result.exit_code == 1
    assert "other epochs (" in result.output.replace("\n", " ")
    copied = tmp_path / "copied.csv"  # the same rows under another name are the same data
    copied.write_bytes(texts.read_bytes())
    assert prune(model_directory, copied, stopped, spec_file, "--resume").exit_code == 0


def test_a_damaged_newest_checkpoint_is_named(
    stopped: Path, model_directory: Path, texts: Path, spec_file: Path
) -> None:
    [checkpoint] = (stopped / "checkpoints").iterdir()
    (checkpoint / "trainer_state.json").unlink()
    result = prune(model_directory, texts, stopped, spec_file, "--resume")
    assert result.exit_code == 1
    assert "holds no complete checkpoint" in result.output.replace("\n", "")


def test_what_changed_is_told_with_what_it_was(tmp_path: Path) -> None:
    run = {"epochs": 4.0, "labels": ["a", "b"], "data": digest_of_rows([{"text": "x"}])}
    check_same_run(tmp_path, run, resume=False)
    check_same_run(tmp_path, run, resume=True)
    with pytest.raises(CommandError, match=r'epochs \(4\.0\) and labels \(\["a", "b"\]\) and data;'):
        check_same_run(tmp_path, {"epochs": 2.0, "labels": ["b", "a"], "data": "?"}, resume=True)
    (tmp_path / "run.json").unlink()
    check_same_run(tmp_path, run, resume=True)  # of a version that wrote none
