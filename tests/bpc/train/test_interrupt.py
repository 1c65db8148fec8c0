from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from bpc.train import ResumableInterrupt, Trainer


class PressCtrlC(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(
    make_program: Callable[..., Any],
    arguments: Callable[..., Any],
    dataset: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    stop = ResumableInterrupt()
    trainer = Trainer(program=make_program(), args=arguments(), train_dataset=dataset, callbacks=[PressCtrlC(), stop])
    trainer.train()
    assert stop.interrupted
    assert trainer.state.global_step == 4
    assert (tmp_path / "run" / "checkpoint-4" / "model.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is handler

    whole, resumed = make_program(), make_program(seed=3)
    Trainer(program=whole, args=arguments("other"), train_dataset=dataset).train()
    again = ResumableInterrupt()
    Trainer(program=resumed, args=arguments(), train_dataset=dataset, callbacks=[again]).train(
        resume_from_checkpoint=True
    )
    assert not again.interrupted
    for name, value in whole.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[name], value, rtol=0, atol=0, msg=name)
