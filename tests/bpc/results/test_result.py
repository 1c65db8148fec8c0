"""Result files: written and read again, shown, compared where they may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bpc.results import (
    SCHEMA,
    Figure,
    Result,
    ResultError,
    ResultMismatch,
    Value,
    count,
    difference_table,
    read_result,
    result_markdown,
    result_table,
    score_figures,
)
from bpc.tasks.score import Score
from tests.bpc.cli.commands import run

SAMPLE = "872 examples, sha256 ab"


def printed(table: Any) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return " ".join(console.export_text().split())


def result(accuracy: float, sample: str | None = SAMPLE, **workload: Any) -> Result:
    before, after = Score("accuracy", 0.9, 0.01, 872), Score("accuracy", accuracy, 0.02, 872)
    seconds = Figure(
        name="time",
        unit="s",
        original=Value(value=0.03, raw=[0.03, 0.031]),
        small=Value(value=0.01),
        workload={"runtime": "onnx", "batch": 8, "length": 64, "dtype": "float32", **workload},
    )
    figures = [*score_figures([before], [after], [], sample), count("parameters", 1000, 400), seconds]
    return Result(command="prune", figures=figures, seeds={"seed": 1}, inputs={"data": "ab"})


def test_it_is_written_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    result(0.89).write(file)
    assert read_result(file) == result(0.89)
    held = json.loads(file.read_text())
    assert held["schema"] == SCHEMA
    assert held["figures"][2]["original"]["raw"] == [0.03, 0.031]
    assert held["machine"]["versions"]["torch"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "schema|command"),
        ("[1]", "is no result of bpc"),
        ("{", "is no result of bpc"),
        ('{"schema": "bpc.result/9", "command": "x", "figures": []}', r"schema: Input should be 'bpc\.result/1'"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.json"
    file.write_text(text)
    with pytest.raises(ResultError, match=message):
        read_result(file)
    with pytest.raises(ResultError, match="does not exist"):
        read_result(tmp_path / "none.json")


def test_the_table_has_units_and_changes() -> None:
    text = printed(result_table(result(0.89)))
    for part in ("90.00% ± 1.00%", "-1.00 points", "1,000", "-60.0%", "ONNX Runtime, 8 × 64", "30.0 ms", "3.00×"):
        assert part in text
    assert "| accuracy | 90.00% ± 1.00% | 89.00% ± 2.00% | -1.00 points |" in result_markdown(result(0.89))
    assert "nothing removed" in printed(result_table(Result(command="x", figures=[count("parameters", 5, 5)])))


def test_two_that_were_measured_alike_are_compared() -> None:
    text = printed(difference_table(result(0.89), result(0.88), ("a", "b")))
    assert "-1.00 ± 2.83 points" in text
    assert "the same" in text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (result(0.88, "870 examples, sha256 cd"), "accuracy does not compare: its sample is 872 examples"),
        (result(0.88, length=128), "time does not compare: its workload is .*length 64.* in a, .*length 128"),
        (Result(command="x", figures=[count("parameters", 5, 5, "bytes")]), "its unit is count in a, bytes in b"),
        (Result(command="x", figures=[count("heads", 5, 5)]), "no figure in common"),
    ],
)
def test_others_are_not(other: Result, message: str) -> None:
    with pytest.raises(ResultMismatch, match=message):
        difference_table(result(0.89), other, ("a", "b"))


def test_the_command_says_why_it_refuses(tmp_path: Path) -> None:
    result(0.89).write(tmp_path / "a.json")
    result(0.88, "others").write(tmp_path / "b.json")
    (tmp_path / "c").mkdir()
    result(0.88).write(tmp_path / "c" / "result.json")
    assert "points" in run("compare", tmp_path / "a.json", tmp_path / "c").output
    refused = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert refused.exit_code == 1
    assert "its sample is" in refused.output
