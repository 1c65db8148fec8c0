"""Ctrl-C, or SIGTERM, ends a training run after the step it is in, with a checkpoint that it can be resumed from."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what schedulers send before they kill


class ResumableInterrupt(TrainerCallback):
    """The first Ctrl-C or SIGTERM saves and stops; a second one kills the process as usual.

    A signal to any rank of a distributed run stops all of them, after the same step.

    Attributes:
        signal: the number of the signal that stopped the run; None where none did. The checkpoint lies in
            ``args.output_dir``; ``trainer.train(resume_from_checkpoint=True)`` goes on from it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped this way."""
        return self.signal is not None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.signal = None
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = {number: signal.signal(number, self._stop) for number in _SIGNALS}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            sent = torch.tensor(self.signal or 0, device=args.device)
            torch.distributed.all_reduce(sent, torch.distributed.ReduceOp.MAX)
            self.signal = int(sent) or None
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._restore()
