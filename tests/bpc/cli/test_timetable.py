"""Time before it is spent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from bpc.cli.timetable import FEWEST, Timetable, measure, remember, remembered
from bpc.cli.training import Run
from bpc.tasks import TASKS
from bpc.tasks.data import read_rows


def test_all_phases_are_cut_alike_until_they_fit() -> None:
    table = Timetable(1.0, 4.0, 2.0, steps=1000, step_seconds=0.1, other_seconds=60.0)
    cut = table.within(5)
    assert cut.seconds == pytest.approx(300)
    assert cut.fine_tuning / 1 == pytest.approx(cut.pruning / 4) == pytest.approx(cut.filling / 2)
    assert table.within(600) == table
    least = table.within(0.5)  # less than what is not training
    assert least.fine_tuning == least.pruning == least.filling == FEWEST / 1000
    assert Timetable(0.0, 4.0, 0.0, 1000, 0.1, 60.0).within(2).fine_tuning == 0


def test_measuring_leaves_no_trace(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    task = TASKS["classification"](transformers.AutoTokenizer.from_pretrained(model_directory))
    rows = task.check(read_rows(str(texts)), "texts")
    task.learn(rows)
    run = Run(task, task.encode(rows), rows, batch_size=8, bf16=False, seed=0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_directory)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    table = measure(run, model, (0.0, 2.0, 0.0))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert table.steps == 8
    assert table.step_seconds > 0
    remember(tmp_path, table)
    assert remembered(tmp_path) == table
    assert remembered(tmp_path / "none") is None
