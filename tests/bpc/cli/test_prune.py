"""Runs of `bpc prune` on a tiny model."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import bpc.train
from bpc.dense import load
from tests.bpc.cli.commands import prune


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_prune_stops_on_a_signal_and_resumes_to_the_same_masks(
    model_directory: Path,
    texts: Path,
    spec_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: int,
    code: int,
) -> None:
    whole = prune(model_directory, texts, tmp_path / "whole", spec_file, "--eval", texts)
    assert whole.exit_code == 0, whole.output
    assert "accuracy" in whole.output
    step = bpc.train.Trainer.training_step
    calls = []

    def interrupted_at_step_5(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 5:
            os.kill(os.getpid(), sent)
        return step(self, *arguments, **options)

    monkeypatch.setattr(bpc.train.Trainer, "training_step", interrupted_at_step_5)
    log = ["--log-json", tmp_path / "log.jsonl"]
    stopped = prune(model_directory, texts, tmp_path / "cut", spec_file, *log)
    assert stopped.exit_code == code
    assert "stopped at step 5" in stopped.output
    again = prune(model_directory, texts, tmp_path / "cut", spec_file)
    assert again.exit_code == 1
    assert "add --resume" in again.output.replace("\n", " ")
    resumed = prune(model_directory, texts, tmp_path / "cut", spec_file, "--resume", *log)
    assert resumed.exit_code == 0, resumed.output
    told = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["exit_code"] for line in told if line["event"] == "end"] == [code, 0]
    pruned = [line for line in told if line["event"] == "phase" and line["name"] == "pruning"]
    assert [line["step"] for line in pruned] == [0, 5]
    steps = [line for line in told if line["event"] == "step" and line["phase"] == "pruning"]
    assert {"loss", "threshold", "lambda", "density"} <= steps[-1].keys()
    assert [line["step"] for line in steps] == sorted({line["step"] for line in steps})
    masks, expected = (load_file(tmp_path / name / "masks.safetensors") for name in ("cut", "whole"))
    assert masks.keys() == expected.keys()
    assert any(not mask.all() for mask in expected.values())
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
    small = load(tmp_path / "whole" / "small").module
    assert sum(p.numel() for p in small.parameters()) < sum(
        p.numel()
        for p in AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole" / "masked").parameters()
    )
    assert json.loads((tmp_path / "whole" / "spec.json").read_text())["name"] == "struct (changed)"
    assert not (tmp_path / "whole" / "checkpoints").exists()
    over = prune(model_directory, texts, tmp_path / "whole", spec_file)
    assert over.exit_code == 1
    assert "add --force to replace it" in over.output.replace("\n", " ")


def test_texts_longer_than_the_model_are_refused_at_once(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path
) -> None:
    result = prune(model_directory, texts, tmp_path / "out", spec_file, "--max-length", 513)
    assert result.exit_code == 1
    assert "--max-length 513: the model has positions for 512 tokens" in result.output.replace("\n", "")


def test_filling_uses_the_zeros_that_are_left(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    spec = tmp_path / "filled.json"
    rules = [{"roles": "attention.*", "block": [4, 4]}, {"roles": "ffn.*", "block": [1, "in_features"], "paired": True}]
    spec.write_text(json.dumps({"rules": rules, "fill": True, "floor": 0.3, "scores": {"learning_rate": 0.5}}))
    result = prune(model_directory, texts, tmp_path / "out", spec, "--fill-epochs", "0.25")
    assert result.exit_code == 0, result.output
    small = dict(load(tmp_path / "out" / "small").module.named_parameters())
    weights = [w for name, w in small.items() if name.endswith("value.weight") and w.numel() > 64]
    assert weights
    assert not any((weight == 0).any() for weight in weights)
    masks = load_file(tmp_path / "out" / "masks.safetensors")
    assert any(not mask.all() and mask.any() for name, mask in masks.items() if name.endswith("value.weight"))


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_a_budget_goes_with_a_teacher_asked_once_for_logits_and_a_phase_left_out(
    model_directory: Path, texts: Path, tmp_path: Path, hidden: float
) -> None:
    spec = tmp_path / "filled.json"
    changes = {"scores": {"learning_rate": 0.5}, "distillation": {"hidden": hidden}}
    spec.write_text(json.dumps({"preset": "struct", "fill": True, **changes}))
    more = ("--teacher", model_directory, "--minutes", 60, "--fill-epochs", 0, "--keep-checkpoints")
    result = prune(model_directory, texts, tmp_path / "out", spec, *more)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "teacher.safetensors").exists() == (hidden == 0.0)


def test_resume_without_a_checkpoint_is_refused(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path
) -> None:
    result = prune(model_directory, texts, tmp_path / "out", spec_file, "--resume")
    assert result.exit_code == 1
    assert "holds no checkpoint" in result.output.replace("\n", "")


def test_one_label_is_no_task(model_directory: Path, spec_file: Path, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,label\na,x\nb,x\n")
    result = prune(model_directory, tmp_path / "d.csv", tmp_path / "out", spec_file)
    assert result.exit_code == 1
    assert "every row has the label 'x'; a classifier needs two or more" in result.output.replace("\n", "")


def test_force_takes_no_original_of_an_earlier_run(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path
) -> None:
    out, original = tmp_path / "out", tmp_path / "out" / "original"
    options = ["--dense-epochs", 0.25, "--epochs", 0.25, "--no-time", "--force"]
    assert prune(model_directory, texts, out, spec_file, *options).exit_code == 0
    first = load_file(original / "model.safetensors")
    assert prune(model_directory, texts, out, spec_file, *options, "--seed", 7).exit_code == 0
    second = load_file(original / "model.safetensors")
    assert not all(torch.equal(first[name], second[name]) for name in first)
    lost = prune(original, texts, out, spec_file, *options)
    assert lost.exit_code == 1
    assert "would remove" in lost.output.replace("\n", " ")
    assert (original / "model.safetensors").exists()
