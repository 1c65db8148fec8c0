"""Time before it is spent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from bpc.cli.timetable import FEWEST, FILLING, FINE_TUNING, PRUNING, Phase, Timetable, plan, remember, remembered
from bpc.cli.training import Run
from bpc.tasks import TASKS
from bpc.tasks.data import read_rows


def table(**asked: float) -> Timetable:
    return Timetable(
        {name: Phase(count, count, 0.1) for name, count in asked.items()}, 1000, dict.fromkeys(asked, 60.0)
    )


def test_all_phases_are_cut_alike_until_they_fit() -> None:
    whole = table(a=1.0, b=4.0, c=2.0)
    cut = whole.within(300)
    assert cut.seconds == pytest.approx(300)
    assert cut.epochs("a") / 1 == pytest.approx(cut.epochs("b") / 4) == pytest.approx(cut.epochs("c") / 2)
    assert whole.within(36000) == whole
    assert cut.within(36000) == whole  # what was cut comes back where there is time after all
    least = whole.within(30)  # less than what is not training
    assert {least.epochs(name) for name in "abc"} == {FEWEST / 1000}
    assert whole.epochs("none") == 0
    assert cut.overrun(300) == ""
    said = least.overrun(30)  # 60 s are no training, 6 s are the fewest steps
    assert "more than --minutes leaves (0.5): no phase gets fewer than 20 steps, and 1.0 minutes" in said


def test_a_phase_that_was_timed_corrects_those_after_it() -> None:
    begun = table(a=1.0, b=4.0, c=2.0).started("b", 0.3)
    assert [p.step_seconds for p in begun.phases.values()] == pytest.approx([0.1, 0.3, 0.3])
    assert begun.seconds == pytest.approx(60 + 6000 * 0.3)
    cut = begun.within(60 + 600 * 0.3)
    assert [cut.epochs(name) for name in "abc"] == pytest.approx([1.0, 0.4, 0.2])  # what is done stays as it was


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
    found = plan(run, model, {FINE_TUNING: 0.0, PRUNING: 2.0, FILLING: 1.0}, taught=True)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert found.steps == 8
    assert list(found.phases) == [PRUNING, FILLING]
    assert found.phases[PRUNING].step_seconds > found.phases[FILLING].step_seconds > 0
    remember(tmp_path, found)
    assert remembered(tmp_path) == found
    assert remembered(tmp_path / "none") is None
