"""The result of a sweep: its file, its table, and the speed-up of a trial."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from bpc.results import Figure, Result, ResultError, Value, arithmetic_figure
from bpc.results.sweep import Sweep, Trial, read_sweep, speedup_of, sweep_table
from tests.bpc.results.sweeps import done, sweep_of


def test_a_sweep_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = sweep_of(done(0, 0.9, 2.0, front=True), Trial(number=1, directory="trial-001", values={}, state="failed"))
    written.write(tmp_path / "sweep.json")
    assert read_sweep(tmp_path / "sweep.json") == written
    (tmp_path / "other.json").write_text('{"schema": "bpc.result/1"}')
    with pytest.raises(ResultError, match=r"other.json is no sweep of bpc \(bpc.sweep/1\): schema"):
        read_sweep(tmp_path / "other.json")
    with pytest.raises(ResultError, match=r"none.json does not exist"):
        read_sweep(tmp_path / "none.json")


def shown(sweep: Sweep) -> list[list[str]]:
    out = io.StringIO()
    Console(file=out, width=200).print(sweep_table(sweep))
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]


def test_the_table_goes_from_slow_to_fast_and_marks_the_front() -> None:
    failed = Trial(number=3, directory="trial-003", values={"epochs": 9}, state="failed", why="no")
    rows = shown(sweep_of(done(0, 0.9, 3.0, front=True), done(1, 0.95, 1.5, front=True), done(2, 0.8, 2.0), failed))
    assert [row[:3] for row in rows] == [["●", "001", "1"], ["", "002", "2"], ["●", "000", "0"], ["", "003", "9"]]
    assert rows[0][3:] == ["95.00% ± 1.00%", "92.00%", "1.50× ± 0.10"]
    assert rows[3][3:] == ["failed", "", ""]


def test_a_speed_up_has_the_error_of_its_turns() -> None:
    before = Value(value=0.4, raw=[0.4, 0.4, 0.44, 0.36])
    after = Value(value=0.2, raw=[0.2, 0.2, 0.2, 0.2])
    timed = Result(command="prune", figures=[Figure(name="time", unit="s", original=before, small=after)])
    found = speedup_of(timed, timed=True)
    assert found.value == 2
    assert found.raw == pytest.approx([2, 2, 2.2, 1.8])
    assert found.standard_error == pytest.approx(math.sqrt(math.pi / 8) * math.sqrt(0.08 / 3))
    counted = Result(command="prune", figures=[arithmetic_figure(900, 300, 8, 64)])
    assert speedup_of(counted, timed=False) == Value(value=3)


def test_a_run_that_could_not_be_timed_says_why() -> None:
    untimed = Result(command="prune", figures=[arithmetic_figure(900, 300, 8, 64)], notes=["not timed: no kernel"])
    with pytest.raises(ResultError, match="there is no speed-up: not timed: no kernel"):
        speedup_of(untimed, timed=True)
    with pytest.raises(ResultError, match="its arithmetic is not known"):
        speedup_of(Result(command="prune", figures=[]), timed=False)
