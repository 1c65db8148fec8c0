"""Alternating timing of several models, each in a worker process of its own (`bpc.timing.worker`)."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

# ONNX Runtime's threads keep spinning for a moment after a run; the other side must not pay for it.
_PAUSE_BETWEEN_TURNS = 0.02


# "cpu" counts the process's CPU seconds: steady on a machine that other work disturbs, meaningful with one thread only.
Clock = Literal["wall", "cpu"]


class BenchmarkError(RuntimeError):
    """A model could not be loaded or run; the message is the worker's."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each timed run of one model, in order."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """Fewest seconds: what the machine does when nothing else runs."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median: above 0.1 the machine was busy; measure again."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


class Worker:
    """Handle of one worker process. Use as a context manager."""

    def __init__(self, name: str, command: Mapping[str, Any]) -> None:
        self.name = name
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bpc.timing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self._ask({"do": "load", **command})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def time(self, warmup: int, repeats: int, clock: Clock = "wall") -> list[float]:
        """Seconds of ``repeats`` runs after ``warmup`` untimed ones."""
        return self._ask({"do": "time", "warmup": warmup, "repeats": repeats, "clock": clock})["seconds"]

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise BenchmarkError(f"{self.name}: the timing process died: {self._errors.read()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{self.name}: {answer['error']}")
        return answer


def alternate(workers: Sequence[Worker], *, repeats: int = 9, warmup: int = 3, clock: Clock = "wall") -> list[Timing]:
    """Time all workers in turns: ``repeats`` turns each, one untimed and one timed run per turn.

    ``repeats`` is at least 7; order within a round alternates, so that a drift of the machine hits all alike.
    """
    if repeats < 7:
        raise ValueError(f"repeats={repeats}: a median of fewer than 7 runs says little")
    for worker in workers:
        worker.time(warmup, 1)
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for turn in range(repeats):
        for worker in workers if turn % 2 == 0 else reversed(workers):
            time.sleep(_PAUSE_BETWEEN_TURNS)
            seconds[worker.name] += worker.time(1, 1, clock)
    return [Timing(worker.name, tuple(seconds[worker.name])) for worker in workers]


def available_threads() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
