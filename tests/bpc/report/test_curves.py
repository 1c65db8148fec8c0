"""Curves of a training log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpc.report.curves import curve_panels, read_log

HISTORY = [
    {"step": 10, "loss": 2.0, "density": 0.9, "threshold": 0.02, "heads": 8},
    {"step": 20, "loss": 1.0, "density": 0.5, "threshold": 0.10, "heads": 4},
    {"step": 20, "eval_loss": 1.5, "eval_accuracy": 0.75, "eval_runtime": 3.0, "eval_samples_per_second": 2.0},
]
FILLING = [{"step": 5, "loss": 0.5}, {"step": 10, "loss": float("nan")}, {"step": 10, "eval_accuracy": 0.8}]


def test_curves_show_what_was_logged_and_nothing_else() -> None:
    panels = {panel.title: panel for panel in curve_panels(HISTORY)}
    assert list(panels) == [  # no FFN dims and no λ in this log; seconds are no metric
        "loss", "accuracy (evaluation)", "density of the masked weights", "threshold τ", "heads left"
    ]  # fmt: skip
    training, evaluation = panels["loss"].lines
    assert training.texts == ("pruning, step 10: training 2", "pruning, step 20: training 1")
    assert evaluation.texts == ("pruning, step 20: evaluation 1.5",)
    (x0, y0), (x1, y1) = panels["density of the masked weights"].lines[0].points
    assert x0 < x1
    assert y0 < y1  # less is lower, and y points down
    assert all(
        panel.left <= x <= panel.right for panel in panels.values() for line in panel.lines for x, _ in line.points
    )
    assert curve_panels([{"step": 1}]) == ()


def test_phases_stand_side_by_side() -> None:
    loss, accuracy, *pruned = curve_panels({"pruning": HISTORY, "filling": FILLING})
    assert loss.lines[0].texts[-1] == "filling, step 25: training 0.5"
    assert [name for _, name in loss.phases] == [name for _, name in accuracy.phases] == ["pruning", "filling"]
    assert {name for panel in pruned for _, name in panel.phases} == {"pruning"}
    boundary = loss.phases[1][0]
    assert loss.lines[0].points[1][0] == boundary < loss.lines[0].points[2][0]


def test_long_logs_keep_their_ends() -> None:
    (loss,) = curve_panels([{"step": i, "loss": 1.0 + i} for i in range(5000)])
    (line,) = loss.lines
    assert len(line.points) < 300
    assert line.texts[0].startswith("training, step 0:")
    assert line.texts[-1].startswith("training, step 4,999:")


def test_ticks_differ_and_steps_are_whole() -> None:
    (loss,) = curve_panels([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}])
    assert [label for _, label in loss.across] == ["0", "1", "2"]
    labels = [label for _, label in loss.up]
    assert len(set(labels)) == len(labels) > 1
    middle = sum(y for y, _ in loss.up) / len(loss.up)
    assert all(abs(y - middle) < 40 for _, y in loss.lines[0].points)


def test_a_log_is_read_from_its_file_or_its_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "trainer_state.json"
    file.write_text(json.dumps({"log_history": HISTORY}))
    assert read_log(file) == read_log(tmp_path) == HISTORY
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"trainer_state\.json has no log_history"):
        read_log(tmp_path)
