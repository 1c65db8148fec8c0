"""Families: every model comes from the one before, and stands beside the original."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import bpc.train
from bpc.cli.family import speedups_of
from bpc.dense import load
from bpc.results import Figure, read_result
from bpc.results.sweep import read_sweep
from bpc.terminal.errors import CommandError
from tests.bpc.cli.commands import run
from tests.bpc.fake_times import by_size, seconds


@pytest.fixture(autouse=True)
def times_by_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    by_size(monkeypatch, tmp_path / "times")


def family(model: Path, data: Path, out: Path, speedups: str, *more: Any) -> Result:
    common = ("--model", model, "--data", data, "--out", out, "--family", speedups, "--batch-size", 8, "--no-time")
    return run("prune", *common, *more)


def figure(out: Path, name: str) -> Figure:
    found = read_result(out / "result.json").figure(name)
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", ["one-shot", "masks"])
def test_each_model_is_cut_from_the_last_and_compared_with_the_first(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    out, options = tmp_path / "out", ["--eval", texts, "--epochs", 2, "--learning-rate", 1e-3]
    options += ["--one-shot"] if way == "one-shot" else ["--spec", spec_file]
    step, calls = bpc.train.Trainer.training_step, []

    def interrupted_in_the_second(self: Any, *arguments: Any, **others: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 28:  # of 16 steps a run
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments, **others)

    monkeypatch.setattr(bpc.train.Trainer, "training_step", interrupted_in_the_second)
    assert family(model_directory, texts, out, "1.15,1.35", *options).exit_code == 143
    assert (out / "1.15x" / "result.json").exists()
    refused = family(model_directory, texts, out, "1.15,1.35", *options)
    assert "holds a family already" in refused.output.replace("\n", " ")
    other = family(model_directory, texts, out, "1.15,1.4", *options, "--resume")
    assert "was started with other speed-ups" in other.output.replace("\n", " ")
    first = (out / "1.15x" / "small" / "model.safetensors").read_bytes()
    whole = family(model_directory, texts, out, "1.15,1.35", *options, "--resume")
    assert whole.exit_code == 0, whole.output
    assert (out / "1.15x" / "small" / "model.safetensors").read_bytes() == first

    original = seconds(AutoModelForSequenceClassification.from_pretrained(model_directory))
    places = [out / "1.15x", out / "1.35x"]
    graphs = [load(place / "small").graph_module for place in places]
    assert [original / seconds(graph) for graph in graphs] == pytest.approx([1.15, 1.35], rel=0.05)
    weights = [load_file(place / "small" / "model.safetensors") for place in places]
    assert all(weights[1][name].shape <= weight.shape for name, weight in weights[0].items())
    for name in ("accuracy", "heads", "FFN dims", "arithmetic"):
        assert figure(places[0], name).original == figure(places[1], name).original, name
    for place, held in zip(places, weights, strict=True):
        dims = sum(w.shape[0] for name, w in held.items() if name.endswith("intermediate.dense.weight"))
        left = figure(place, "FFN dims").small
        assert left is not None
        assert left.value == dims
    summary = read_sweep(out / "family.json")
    assert [trial.directory for trial in summary.trials] == ["1.15x", "1.35x"]
    assert [trial.values for trial in summary.trials] == [{"target_speedup": 1.15}, {"target_speedup": 1.35}]
    assert (out / "family.png").read_bytes().startswith(b"\x89PNG")
    assert "2 of 2 trials" in whole.output


def test_lists_that_are_none_and_options_that_do_not_go_with_them(
    model_directory: Path, texts: Path, tmp_path: Path
) -> None:
    assert speedups_of("2, 3.5,6") == (2.0, 3.5, 6.0)
    for text in ("", "2,x", "1,2", "3,2", "2,2", "2,inf", "nan"):
        with pytest.raises(CommandError, match="each larger than the one before"):
            speedups_of(text)

    def said(*more: Any) -> str:
        result = family(model_directory, texts, tmp_path / "out", "2,3", *more)
        assert result.exit_code == 1, result.output
        return result.output.replace("\n", " ")

    assert "leave --target-… out" in said("--target-params", 0.5)
    assert "--minutes plans one run" in said("--minutes", 3)
    assert "holds no family" in said("--resume")
    assert not (tmp_path / "out" / "family-run.json").exists()
    dry = family(model_directory, texts, tmp_path / "dry", "2,3", "--one-shot", "--dry-run")
    assert dry.exit_code == 0
    assert "2 runs, each from the model of the one before" in dry.output


def test_force_removes_runs_alone_and_no_model_that_is_read(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("2x", "3dbox", "4x"):
        (out / name).mkdir(parents=True)
    (out / "3dbox" / "mine.txt").write_text("kept")
    (out / "4x" / "run.json").write_text("{}")
    inside = out / "4x" / "small"
    shutil.copytree(model_directory, inside)
    options = ("--one-shot", "--epochs", 1, "--force")
    refused = family(inside, texts, out, "1.2", *options)
    assert refused.exit_code == 1
    assert "--force would remove" in refused.output.replace("\n", " ")
    assert (inside / "config.json").exists()
    done = family(model_directory, texts, out, "1.2", *options)
    assert done.exit_code == 0, done.output
    assert (out / "3dbox" / "mine.txt").read_text() == "kept"
    assert not (out / "4x").exists()
    assert (out / "1.2x" / "small" / "config.json").exists()
