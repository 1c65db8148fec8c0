"""Curves of a training log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpc.report.curves import curves_figure, read_log

HISTORY = [
    {"step": 10, "loss": 2.0, "density": 0.9, "threshold": 0.02, "heads": 8},
    {"step": 20, "loss": 1.0, "density": 0.5, "threshold": 0.10, "heads": 4},
    {"step": 20, "eval_loss": 1.5},
]


def test_curves_show_what_was_logged() -> None:
    density, heads, loss = curves_figure(HISTORY).axes  # no FFN dims in this log: no panel for them
    assert list(density.lines[0].get_ydata()) == [0.9, 0.5]
    assert list(heads.lines[0].get_ydata()) == [8, 4]
    assert [tick for tick in heads.get_yticks() if tick % 1] == []
    assert [list(line.get_xdata()) for line in loss.lines] == [[10, 20], [20]]
    with pytest.raises(ValueError, match=r"bpc\.Trainer"):
        curves_figure([{"step": 1}])


def test_a_log_is_read_from_its_file_or_its_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "trainer_state.json"
    file.write_text(json.dumps({"log_history": HISTORY}))
    assert read_log(file) == read_log(tmp_path) == HISTORY
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"trainer_state\.json has no log_history"):
        read_log(tmp_path)
