"""Resident memory of this process, for the benchmarks beside this file (Linux)."""

from __future__ import annotations

import resource


def resident() -> int:
    """Bytes resident now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak() -> int:
    """The largest resident set of this program so far, bytes (getrusage's is that of whoever started it, too)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Let `peak` begin again, at what is resident now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
