"""A run killed at any moment of writing a checkpoint goes on from the newest that is whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpc.train import Trainer
from bpc.train.checkpoints import lacks, newest_complete

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


class Killed(BaseException):
    """As a SIGKILL: no handler of exceptions cleans up."""


@pytest.fixture
def checkpoints(make_program: Make, arguments: Make, dataset: Rows, tmp_path: Path) -> Path:
    """Two whole ones, of steps 2 and 4."""
    settings = arguments("run", max_steps=4, save_strategy="steps", save_steps=2)
    Trainer(program=make_program(), args=settings, train_dataset=dataset).train()
    return tmp_path / "run"


def test_whole_ones_lack_nothing(checkpoints: Path) -> None:
    assert newest_complete(checkpoints) == str(checkpoints / "checkpoint-4")
    assert newest_complete(checkpoints / "nowhere") is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damage_is_named_and_skipped(
    checkpoints: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = checkpoints / "checkpoint-4" / name
    whole = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, logger="bpc.train.checkpoints"):
        assert newest_complete(checkpoints) == str(checkpoints / "checkpoint-2")
    assert "checkpoint-4 is skipped: it" in caplog.text
    assert name in caplog.text or (name == "model.safetensors" and "no weights" in caplog.text)
    assert lacks(checkpoints / "checkpoint-2") is None


@pytest.mark.parametrize("killed_at", ["_save_rng_state", "on_save"])
def test_a_run_killed_while_it_writes_resumes_exactly(
    make_program: Make,
    arguments: Make,
    dataset: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: str,
) -> None:
    """In the middle, with the weights written and the state not; and after it, when that checkpoint counts."""
    expected = 4 if killed_at == "on_save" else 2
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    whole = make_program()
    Trainer(program=whole, args=arguments("whole", **settings), train_dataset=dataset).train()
    victim = Trainer(program=make_program(), args=arguments("killed", **settings), train_dataset=dataset)
    owner = victim.callback_handler if killed_at == "on_save" else victim
    original = getattr(owner, killed_at)

    def killed(*args: Any, **kwargs: Any) -> Any:
        if victim.state.global_step == 4:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, killed_at, killed)
    with pytest.raises(Killed):
        victim.train()
    assert newest_complete(tmp_path / "killed") == str(tmp_path / "killed" / f"checkpoint-{expected}")
    again = make_program(seed=3)
    Trainer(program=again, args=arguments("killed", **settings), train_dataset=dataset).train(
        resume_from_checkpoint=True
    )
    for key, value in whole.module.state_dict().items():
        assert again.module.state_dict()[key].equal(value), key


def test_nothing_whole_is_said(checkpoints: Path, make_program: Make, arguments: Make, dataset: Rows) -> None:
    for path in checkpoints.iterdir():
        (path / "trainer_state.json").unlink()
    trainer = Trainer(program=make_program(), args=arguments("run"), train_dataset=dataset)
    with pytest.raises(ValueError, match="holds no complete checkpoint"):
        trainer.train(resume_from_checkpoint=True)
