"""Seconds and memory of the stages of a case, each over several repeats."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.memory import forget_peak, peak, resident


class Clock:
    """Stages by name: CPU seconds, seconds, and how far the peak lies above what was resident at the start."""

    def __init__(self) -> None:
        self.before = resident()
        self.repeats: dict[str, list[tuple[float, float, int]]] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        seconds = time.process_time() - cpu, time.perf_counter() - wall
        self.repeats.setdefault(name, []).append((*seconds, peak() - self.before))

    def figures(self) -> dict[str, dict[str, Any]]:
        """By stage: medians of CPU seconds and seconds, all CPU seconds, the first peak: later ones find leftovers."""
        found = {}
        for name, repeats in self.repeats.items():
            cpu, wall, grown = zip(*repeats, strict=True)
            found[name] = {
                "cpu s": statistics.median(cpu),
                "s": statistics.median(wall),
                "all cpu s": [round(seconds, 4) for seconds in cpu],
                "peak bytes": grown[0],
            }
        return found
