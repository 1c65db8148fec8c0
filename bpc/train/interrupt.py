"""Ctrl-C ends a training run after the step it is in, with a checkpoint that it can be resumed from."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ResumableInterrupt(TrainerCallback):
    """The first Ctrl-C saves and stops; a second one kills the process as usual.

    Attributes:
        interrupted: whether the run was stopped this way. The checkpoint lies in ``args.output_dir``;
            ``trainer.train(resume_from_checkpoint=True)`` goes on from it.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._previous)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.interrupted = False
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = signal.signal(signal.SIGINT, self._stop)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
