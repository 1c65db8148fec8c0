"""Where a one-shot run is: a bar per phase on a terminal, a line per phase elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bpc.terminal.events import tell, told


class PhaseProgress:
    """Phases one after the other. ``seconds`` holds how long each took."""

    def __init__(self, console: Console | None = None, enabled: bool = True) -> None:
        self.console = console or Console(stderr=True)
        self.enabled = enabled
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line for the user."""
        tell("note", text=text)
        if self.enabled:
            self.console.print(text, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """A phase of ``total`` steps; the function it gives takes one."""
        started = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        moving = self.enabled and self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not moving, transient=True) as bar:
            task = bar.add_task(name, total=total)
            taken = itertools.count(1)

            def step() -> None:
                bar.advance(task)
                tell("step", phase=name, step=next(taken), total=total)

            with told(name, total):
                yield step
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        if self.enabled and not moving:
            self.console.print(f"{name}: {self.seconds[name]:.0f} s", highlight=False)
