from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from examples.tweets.pipeline import Settings, Workplace

SETTINGS = Settings(
    train_size=64,
    dense_epochs=1.0,
    epochs=1.0,
    fill_epochs=1.0,
    batch_size=8,
    dense_learning_rate=1e-4,
    learning_rate=1e-4,
    fill_learning_rate=1e-4,
    score_learning_rate=None,
    final_lambda=8.0,
    preset="hybrid",
    seed=0,
)


def test_the_same_settings_resume_and_others_start_afresh(tmp_path: Path) -> None:
    first = Workplace(tmp_path, SETTINGS)
    assert not first.resumes
    phase = first.phase("pruning", 1.0, 1e-4, SETTINGS)
    (phase.directory / "checkpoint-3").mkdir(parents=True)
    assert Workplace(tmp_path, SETTINGS).resumes
    assert (phase.directory / "checkpoint-3").exists()
    assert not Workplace(tmp_path, dataclasses.replace(SETTINGS, final_lambda=9.0)).resumes
    assert not phase.directory.exists()


def test_what_was_computed_once_is_read_after_an_interruption(tmp_path: Path) -> None:
    values = torch.arange(6.0).view(2, 3)
    assert torch.equal(Workplace(tmp_path, SETTINGS).once("teacher", lambda: values), values)

    def again() -> torch.Tensor:
        raise AssertionError("computed twice")

    place = Workplace(tmp_path, SETTINGS)
    assert torch.equal(place.once("teacher", again), values)
    place.finish()
    assert not Workplace(tmp_path, SETTINGS).resumes
