"""Progress as JSON lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from bpc.terminal.errors import CommandError, reports_errors
from bpc.terminal.events import LogJson, phase, tell, told

app = typer.Typer()


@app.command()
@reports_errors
def work(wrong: str = "", log_json: LogJson = None) -> None:
    with phase(Console(quiet=True), "loading"):
        pass
    with told("training", 2):
        for step in (1, 2):
            tell("step", phase="training", step=step, total=2, loss=math.nan, rates=(0.5, math.inf), file=Path("a"))
        if wrong:
            raise CommandError(wrong)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_is_told_from_start_to_end(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    assert CliRunner().invoke(app, ["--log-json", str(file)]).exit_code == 0
    found = lines(file)
    assert [line["event"] for line in found] == ["start", "phase", "done", "phase", "step", "step", "done", "end"]
    assert found[0]["command"] == "work"
    assert found[0]["options"] == {"wrong": ""}
    assert found[3] | {"time": ""} == {"time": "", "event": "phase", "name": "training", "total": 2}
    step = {
        "event": "step",
        "phase": "training",
        "step": 1,
        "total": 2,
        "loss": None,
        "rates": [0.5, None],
        "file": "a",
    }
    assert found[4] | step == found[4]
    assert found[-1]["exit_code"] == 0
    assert "message" not in found[-1]
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)


def test_a_run_that_fails_says_why_and_the_next_is_added(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    assert CliRunner().invoke(app, ["--log-json", str(file), "--wrong", "no such model"]).exit_code == 1
    end = lines(file)[-1]
    assert (end["event"], end["exit_code"], end["message"]) == ("end", 1, "no such model")
    assert "done" not in [line["event"] for line in lines(file)[-2:]]
    before = len(lines(file))
    assert CliRunner().invoke(app, ["--log-json", str(file)]).exit_code == 0
    assert len(lines(file)) == before + 8
    assert CliRunner().invoke(app, []).exit_code == 0  # and without the option, nothing more
    assert len(lines(file)) == before + 8


def test_a_log_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--log-json", str(tmp_path / "none" / "log.jsonl")])
    assert done.exit_code == 2
    assert "No such file or directory" in done.output.replace("\n", " ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_log_and_not_the_run() -> None:
    assert CliRunner().invoke(app, ["--log-json", "/dev/full"]).exit_code == 0
