"""The progress bar of a pruning run: loss, threshold, λ, and heads and FFN dims as they fall."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bpc.scores import MaskSet
from bpc.scores.structure import live_structure
from bpc.terminal.events import tell

LINES_WITHOUT_TERMINAL = 20  # a log file gets that many lines a run instead of a moving bar


def describe(logs: dict[str, Any], masks: MaskSet | None) -> str:
    """One line about a training log: ``loss 0.512  τ 0.083  λ 16.6  heads 31/72  dims 4010/9216``."""
    parts = []
    if "loss" in logs:
        parts.append(f"loss {float(logs['loss']):.3f}")
    if "threshold" in logs:
        parts += [f"τ {logs['threshold']:.3f}", f"λ {logs['lambda']:.1f}", f"density {logs['density']:.0%}"]
    if "cost" in logs:
        parts.append(f"cost {logs['cost']:.1%} → {logs['cost_asked']:.1%}")
    if masks is not None and "heads" in logs:
        structure = live_structure(masks)
        parts.append(f"heads {logs['heads']}/{sum(structure.total_heads)}")
        parts.append(f"dims {logs['ffn_dims']}/{sum(structure.total_ffn_dims)}")
    return "  ".join(parts)


class PruningProgress(TrainerCallback):
    """A rich progress bar that takes the place of transformers' own; lines instead where there is no terminal."""

    def __init__(self, masks: MaskSet | None = None, title: str = "pruning", console: Console | None = None) -> None:
        self.masks = masks
        self.title = title
        self.note = ""  # said once, when the run begins
        self.console = console or Console()
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.next_line = 0
        self.started = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Searches with worker processes pickle callbacks; a console is its process's own."""
        return {**self.__dict__, "console": None, "progress": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, console=Console())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if self.note:
            self.console.print(self.note, highlight=False, soft_wrap=True)
        self.next_line = state.global_step
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[line]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        tell("phase", name=self.title, total=state.max_steps, step=state.global_step)
        self.started = time.perf_counter()
        self.task = self.progress.add_task(self.title, total=state.max_steps, completed=state.global_step, line="")
        self.progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.progress is None or self.task is None or not logs or "loss" not in logs:
            return
        tell("step", phase=self.title, step=state.global_step, total=state.max_steps, **logs)
        line = describe(logs, self.masks)
        self.progress.update(self.task, line=line)
        if not self.console.is_terminal and state.global_step >= self.next_line:
            text = f"{self.title} {state.global_step}/{state.max_steps}  {line}"
            self.console.print(text, highlight=False, soft_wrap=True)
            self.next_line = state.global_step + max(1, state.max_steps // LINES_WITHOUT_TERMINAL)

    def say(self, text: str) -> None:
        """Print a sentence above the bar, in a run that this process shows."""
        if self.progress is not None:
            self.console.print(text, highlight=False, soft_wrap=True)
            tell("note", text=text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.progress is not None:
            tell("done", phase=self.title, seconds=round(time.perf_counter() - self.started, 3))
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was; also after an interrupted run."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
