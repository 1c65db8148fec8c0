"""Sweeps of tiny models: trials are runs of `bpc prune`, and outlive the process that started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file

from bpc.cli import sweeping
from bpc.cli.pruning import Pruning
from bpc.results import read_result
from bpc.results.sweep import Sweep, read_sweep
from bpc.train import Trainer
from tests.bpc.cli.commands import prune, run

COMMON = '[spec]\npreset = "struct"\nthreshold = { final = 0.1 }\nscores = { learning_rate = 0.5 }\n[sweep]\n'


@pytest.fixture
def recipe(model_directory: Path, texts: Path, tmp_path: Path) -> Any:
    def write(table: str, top: str = "") -> Path:
        held_out = f"eval = {str(texts)!r}\n"
        file = tmp_path / "r.toml"
        file.write_text(
            f"model = {str(model_directory)!r}\ndata = {str(texts)!r}\nepochs = 2\nbatch_size = 8\n"
            f"{held_out}{top}{COMMON}{table}"
        )
        return file

    return write


def swept(recipe: Path, out: Path, *more: Any) -> tuple[Result, Sweep]:
    result = run("sweep", recipe, "--out", out, "--no-time", *more)
    assert (out / "sweep.json").exists(), result.output
    return result, read_sweep(out / "sweep.json")


# Runs bpc with the arguments after the first, until that many training steps begin.
KILLED = """
import os, signal, sys
from bpc.train import Trainer
from bpc.cli import app
step, left = Trainer.training_step, [int(sys.argv[1])]
def counted(self, *arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments, **options)
Trainer.training_step = counted
app(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_to_the_same_end(recipe: Any, tmp_path: Path) -> None:
    """Of 16 steps a trial, the 12th of the second is the last; its checkpoint is that of step 8."""
    file = recipe('trials = 3\nsampler = "random"\nspec.regularization.final_lambda = { low = 1, high = 100 }\n')
    whole, expected = swept(file, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    command = ["sweep", str(file), "--out", str(tmp_path / "cut"), "--no-time"]
    killed = subprocess.run([sys.executable, "-c", KILLED, "28", *command], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [t.state for t in read_sweep(tmp_path / "cut" / "sweep.json").trials] == ["done"]
    first = (tmp_path / "cut" / "trial-000" / "result.json").stat().st_mtime_ns

    again = run(*command)
    assert again.exit_code == 1
    assert "holds a sweep already: add --resume to go on" in again.output.replace("\n", " ")
    resumed, found = swept(file, tmp_path / "cut", "--resume", "--log-json", tmp_path / "log.jsonl")
    assert resumed.exit_code == 0, resumed.output
    told = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told if line["event"] == "phase" and line["name"] == "pruning"] == [8, 0]
    assert [(line["step"], line["total"]) for line in told if line.get("phase") == "sweep" and "step" in line] == [
        (2, 3),
        (3, 3),
    ]
    assert (tmp_path / "cut" / "trial-000" / "result.json").stat().st_mtime_ns == first
    assert found.trials == expected.trials
    assert len({t.values["spec.regularization.final_lambda"] for t in found.trials}) == 3
    for trial in found.trials:
        masks, others = (load_file(tmp_path / n / trial.directory / "masks.safetensors") for n in ("cut", "whole"))
        assert all(torch.equal(masks[name], others[name]) for name in masks | others)

    over, same = swept(file, tmp_path / "cut", "--resume")
    assert over.exit_code == 0
    assert "pruning" not in over.output
    assert same.trials == found.trials
    file.write_text(file.read_text().replace("high = 100", "high = 50"))
    other = run(*command, "--resume")
    assert other.exit_code == 1
    assert "was started with other [sweep]" in other.output.replace("\n", " ")


def test_a_trial_is_what_bpc_prune_makes_of_its_values(
    recipe: Any, model_directory: Path, texts: Path, tmp_path: Path
) -> None:
    file = recipe("learning_rate = [1e-2]\nspec.regularization.final_lambda = [50]\n")
    _, found = swept(file, tmp_path / "out")
    spec = tmp_path / "out" / "trial-000" / "spec.json"
    prune(model_directory, texts, tmp_path / "alone", spec, "--eval", texts, "--learning-rate", 1e-2)
    assert json.loads(spec.read_text())["regularization"]["final_lambda"] == 50
    alone, trial = (load_file(d / "masks.safetensors") for d in (tmp_path / "alone", spec.parent))
    assert all(torch.equal(trial[name], alone[name]) for name in trial | alone)
    result, metric = read_result(tmp_path / "alone" / "result.json"), found.trials[0].metric
    assert metric == next(f for f in result.figures if f.name == "accuracy").small
    flops = next(f for f in result.figures if f.name == "arithmetic")
    assert flops.original is not None
    assert flops.small is not None
    assert found.trials[0].speedup is not None
    assert found.trials[0].speedup.value == flops.original.value / flops.small.value > 1
    single = run("prune", file, "--out", tmp_path / "single", "--dry-run")
    assert single.exit_code == 0, single.output
    assert "one run: the table sweep of" in single.output


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_others_go_on(recipe: Any, tmp_path: Path) -> None:
    result, found = swept(recipe("spec.schedule.final_warmup = [9.5, 2]\n"), tmp_path / "out")
    assert result.exit_code == 1
    assert [t.state for t in found.trials] == ["failed", "done"]
    assert "must stay below 1" in str(found.trials[0].why)
    assert "trial 000 failed: " in result.output
    assert [t.number for t in found.front] == [1]
    again, _ = swept(recipe("spec.schedule.final_warmup = [9.5, 2]\n"), tmp_path / "out", "--resume")
    assert again.exit_code == 1


def test_more_trials_go_on_and_values_that_were_tried_are_not_tried_again(recipe: Any, tmp_path: Path) -> None:
    _, found = swept(recipe("trials = 1\nepochs = [0.25]\n"), tmp_path / "out")
    _, found = swept(recipe("trials = 2\nepochs = [0.25]\n"), tmp_path / "out", "--resume")
    assert [t.same_as for t in found.trials] == [None, 0]
    assert found.trials[1].metric == found.trials[0].metric
    assert found.trials[1].directory == "trial-000"
    assert not (tmp_path / "out" / "trial-001").exists()


def test_one_original_is_fine_tuned_for_all_trials(recipe: Any, tmp_path: Path) -> None:
    top = "dense_epochs = 0.5\n"
    result, found = swept(recipe("epochs = [0.25, 0.5]\n", top), tmp_path / "out", "--log-json", tmp_path / "log")
    assert result.exit_code == 0, result.output
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["name"] for line in told if line["event"] == "phase"].count("fine-tuning") == 1
    assert len({t.original.value for t in found.trials if t.original is not None}) == 1
    assert not (tmp_path / "out" / "trial-000" / "original").exists()
    _, each = swept(recipe("seed = [1]\nepochs = [0.25]\n", top), tmp_path / "each")
    assert [(tmp_path / "each" / t.directory / "original").exists() for t in each.trials] == [True]


def test_force_takes_an_earlier_sweep_away_and_a_dry_run_tries_nothing(recipe: Any, tmp_path: Path) -> None:
    file = recipe("epochs = [0.25]\n")
    dry = run("sweep", file, "--out", tmp_path / "out", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "trials: 1, the first of which is" in dry.output
    assert "epochs: pruning 0.25; 2 steps" in dry.output
    assert not (tmp_path / "out").exists()
    swept(file, tmp_path / "out")
    result, found = swept(recipe("epochs = [0.125]\n"), tmp_path / "out", "--force")
    assert result.exit_code == 0, result.output
    assert [t.values for t in found.trials] == [{"epochs": 0.125}]
    assert json.loads((tmp_path / "out" / "trial-000" / "run.json").read_text())["epochs"] == 0.125


def test_sigterm_stops_a_sweep_at_a_checkpoint_and_is_no_failure(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = Trainer.training_step, []

    def terminated_at_step_3(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments, **options)

    file, log = recipe("epochs = [0.5]\n"), tmp_path / "log.jsonl"
    monkeypatch.setattr(Trainer, "training_step", terminated_at_step_3)
    stopped = run("sweep", file, "--out", tmp_path / "out", "--no-time", "--log-json", log)
    assert stopped.exit_code == 143
    assert "stopped at step 3 of pruning; the same command with --resume goes on" in stopped.output
    result, found = swept(file, tmp_path / "out", "--resume", "--log-json", log)
    assert result.exit_code == 0, result.output
    assert len(calls) == 4
    assert [t.state for t in found.trials] == ["done"]
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["exit_code"] for line in told if line["event"] == "end"] == [143, 0]


def test_a_run_whose_end_the_study_did_not_hear_of_is_not_repeated(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    file = recipe("epochs = [0.25]\n")
    with monkeypatch.context() as patched:
        patched.setattr(sweeping, "speedup_of", killed)
        assert run("sweep", file, "--out", tmp_path / "out", "--no-time").exit_code == 130
    with monkeypatch.context() as patched:
        patched.setattr(Pruning, "work", killed)
        result, found = swept(file, tmp_path / "out", "--resume")
    assert result.exit_code == 0, result.output
    assert [t.state for t in found.trials] == ["done"]


def test_a_full_disk_ends_the_sweep_and_not_the_trial(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    file = recipe("epochs = [0.25]\n")
    with monkeypatch.context() as patched:
        patched.setattr(Pruning, "work", full)
        result = run("sweep", file, "--out", tmp_path / "out", "--no-time")
    assert result.exit_code == 1
    assert "No space left" in result.output
    _, found = swept(file, tmp_path / "out", "--resume")
    assert [t.state for t in found.trials] == ["done"]


def test_what_cannot_be_swept_is_said_before_any_work(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(file: Path, *more: Any) -> str:
        result = run("sweep", file, "--out", tmp_path / "out", *more)
        assert result.exit_code == 1
        return " ".join(result.output.split())

    file = recipe("epochs = [1]\n")
    assert "--resume: " in (text := said(file, "--resume"))
    assert "holds no sweep" in text
    two = recipe("target_density = [0.5]\n", "target_params = 0.9\n")
    assert "one of" in said(two)
    plain = tmp_path / "plain.toml"
    plain.write_text(file.read_text().partition("[sweep]")[0])
    assert "plain.toml has none" in said(plain)
    plain.write_text(file.read_text().replace("eval = ", "# "))
    assert "give --eval" in said(plain)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "bpc.cli.sweeping")
    assert 'pip install "block-pruning-compiler[sweep]"' in said(file)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one trial after the other in one process, and was started in 2" in said(file)
