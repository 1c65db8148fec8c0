"""The report on disk."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.image import imread
from torch import Tensor, fx

import passes
from bpc.report.curves import read_log
from bpc.report.document import write_report

HISTORY = [{"step": 10, "loss": 2.0, "density": 0.9}, {"step": 20, "loss": 1.0, "density": 0.5}]


def test_report_is_complete_on_disk(
    graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult, tmp_path: Path
) -> None:
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": HISTORY}))
    path = write_report(tmp_path / "report", graph, masks, result, history=read_log(tmp_path), title="Tiny")
    text = path.read_text()
    assert "| all | 6 / 8 | 29 / 48 |" in text
    assert "verified: largest difference" in text
    assert sorted(p.name for p in path.parent.iterdir()) == ["pattern.png", "report.md", "training.png"]
    assert imread(path.parent / "pattern.png").std() > 0.05


def test_a_report_before_shrinking_says_that_sizes_are_estimates(
    graph: fx.GraphModule, masks: dict[str, Tensor], tmp_path: Path
) -> None:
    text = write_report(tmp_path, graph, masks).read_text()
    assert "was not compiled yet" in text
    assert "training.png" not in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pattern.png", "report.md"]
