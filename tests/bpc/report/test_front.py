"""A sweep, drawn."""

from __future__ import annotations

import pytest

from bpc.report.front import front_figure
from bpc.results.sweep import Trial
from tests.bpc.results.sweeps import done, sweep_of


def test_all_trials_are_drawn_and_the_front_is_a_line_with_their_numbers() -> None:
    failed = Trial(number=3, directory="trial-003", values={}, state="failed")
    again = done(4, 0.9, 2.0, front=True, same_as=1)
    sweep = sweep_of(done(0, 0.8, 3.0, front=True), done(1, 0.9, 2.0, front=True), done(2, 0.7, 2.5), failed, again)
    (axes,) = front_figure(sweep).axes
    assert [text.get_text() for text in axes.texts] == ["001", "000"]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [f"{name} (± standard error)" for name in ("other trials", "Pareto front", "original")]
    others, front, original = (group.lines[0].get_xydata().tolist() for group in axes.containers)
    assert (others, front, original) == ([[2.5, 0.7]], [[2.0, 0.9], [3.0, 0.8]], [[1.0, 0.92]])
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-pre"]
    assert [line.get_xydata().tolist() for line in steps] == [front]
    bars = [len(group.has_xerr and group.lines[2]) for group in axes.containers]
    assert bars == [2, 2, 2]


def test_units_and_directions_are_on_the_axes() -> None:
    trial = done(0, 12.5, 2.0, front=True)
    (axes,) = front_figure(sweep_of(trial, metric="perplexity", unit="1", better="lower", speed="arithmetic")).axes
    assert axes.get_ylabel() == "perplexity (lower is better)"
    assert axes.get_xlabel() == "arithmetic of the original / arithmetic of the small model (×)"
    with pytest.raises(ValueError, match="no trial to draw"):
        front_figure(sweep_of())
