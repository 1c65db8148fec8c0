from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from bpc.train import PruningProgress, Trainer
from bpc.train.progress import describe


def test_bar_shows_threshold_lambda_heads_and_dims_as_they_fall(
    make_program: Callable[..., Any], arguments: Callable[..., Any], dataset: list[dict[str, Any]]
) -> None:
    program, out = make_program(), io.StringIO()
    trainer = Trainer(program=program, args=arguments(max_steps=40, disable_tqdm=False), train_dataset=dataset)
    bars = [c for c in trainer.callback_handler.callbacks if isinstance(c, PruningProgress)]
    assert len(bars) == 1
    bars[0].console = Console(file=out, width=200)
    trainer.train()
    text = out.getvalue()
    assert "scores learn at 0.3: chosen for 40 steps" in text.splitlines()[0]
    assert "pruning 1/40" in text
    assert "heads 8/8  dims 96/96" in text
    last = trainer.state.log_history[-2]
    assert f"heads {last['heads']}/8  dims {last['ffn_dims']}/96" in text
    assert "τ 0.100  λ 20.0" in text
    assert bars[0].progress is None


@pytest.mark.parametrize("tty", [True, False])
def test_a_run_without_masks_shows_its_loss(
    tty: bool, make_model: Callable[..., Any], arguments: Callable[..., Any], dataset: list[dict[str, Any]]
) -> None:
    out = io.StringIO()
    trainer = Trainer(model=make_model(), title="filling", args=arguments(disable_tqdm=False), train_dataset=dataset)
    bar = next(c for c in trainer.callback_handler.callbacks if isinstance(c, PruningProgress))
    bar.console = Console(file=out, width=200, force_terminal=tty)
    trainer.train()
    assert "filling" in out.getvalue()
    assert "loss" in out.getvalue()


def test_description_of_a_log_without_masks() -> None:
    assert describe({"loss": 0.5}, None) == "loss 0.500"


def test_a_search_can_send_it_to_another_process() -> None:
    """Consoles hold locks, which do not pickle."""
    bar = pickle.loads(pickle.dumps(PruningProgress(title="trial")))
    assert bar.title == "trial"
    bar.console.print("")
