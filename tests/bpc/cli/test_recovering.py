"""`bpc prune --one-shot` on a tiny model."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file

import bpc.train
from bpc.dense import load
from bpc.results import read_result
from tests.bpc.cli.commands import run


def one_shot(model: Path, data: Path, out: Path, *more: Any) -> Result:
    common = ("--model", model, "--data", data, "--out", out, "--one-shot", "--batch-size", 8, "--no-time")
    return run("prune", *common, *more)


@pytest.mark.slow
def test_what_was_chosen_stays_through_an_interruption_of_its_training(
    model_directory: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--target-density", 0.5, "--eval", texts, "--epochs", 2, "--learning-rate", 1e-3)
    whole = one_shot(model_directory, texts, tmp_path / "whole", *options)
    assert whole.exit_code == 0, whole.output
    assert "before training: accuracy" in whole.output
    step, calls = bpc.train.Trainer.training_step, []

    def interrupted_at_step_5(self: Any, *arguments: Any, **others: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments, **others)

    monkeypatch.setattr(bpc.train.Trainer, "training_step", interrupted_at_step_5)
    assert one_shot(model_directory, texts, tmp_path / "cut", *options).exit_code == 143
    monkeypatch.setattr("bpc.cli.recovering.prune_once", lambda *_, **__: pytest.fail("chosen again"))
    resumed = one_shot(model_directory, texts, tmp_path / "cut", *options, "--resume")
    assert resumed.exit_code == 0, resumed.output
    ends = [load_file(tmp_path / name / "small" / "model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] | ends[1])
    assert not (tmp_path / "cut" / "untrained").exists()
    assert not (tmp_path / "cut" / "one-shot").exists()

    result = read_result(tmp_path / "cut" / "result.json")
    small = load(tmp_path / "cut" / "small")
    dims = sum(w.shape[0] for n, w in small.module.state_dict().items() if n.endswith("intermediate.dense.weight"))
    figure = result.figure("FFN dims")
    assert figure is not None
    assert figure.original is not None
    assert figure.small is not None
    assert (figure.original.value, figure.small.value) == (128, dims)
    assert result.details["untrained"][0]["name"] == "accuracy"
    again = one_shot(model_directory, texts, tmp_path / "cut", "--target-density", 0.4)
    assert again.exit_code == 1


def test_what_one_shot_cannot_do_is_said_at_once(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    def said(*more: Any) -> str:
        result = one_shot(model_directory, texts, tmp_path / "out", *more)
        assert result.exit_code == 1, result.output
        return result.output.replace("\n", " ")

    assert "give --target-speedup" in said()
    target = ("--target-density", 0.5)
    assert "hybrid-filled fills zeros after pruning" in said(*target, "--spec", "hybrid-filled")
    assert "--rewind protects heads from masks that learn" in said(*target, "--rewind", texts)
    regression = tmp_path / "numbers.csv"
    regression.write_text("text,label\n" + "".join(f"the film was good,{i}.5\n" for i in range(20)))
    result = run(
        "prune",
        "--model",
        model_directory,
        "--data",
        regression,
        "--task",
        "regression",
        "--out",
        tmp_path / "o",
        "--one-shot",
        *target,
    )
    assert "add --dense-epochs" in result.output.replace("\n", " ")
    dry = one_shot(model_directory, texts, tmp_path / "dry", *target, "--dry-run")
    assert dry.exit_code == 0
    assert "heads that may go: 8, in 2 sublayers" in dry.output
    assert "dims that may go: 128, in 2 sublayers" in dry.output
    spec = tmp_path / "spec.toml"
    spec.write_text('preset = "struct"\nprotect = ["*.layer.0.output.dense.weight"]\n')
    protected = one_shot(model_directory, texts, tmp_path / "dry", *target, "--dry-run", "--spec", spec)
    assert "heads that may go: 8, in 2 sublayers" in protected.output
    assert "dims that may go: 64, in 1 sublayers" in protected.output
