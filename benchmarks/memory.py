"""Resident memory of this process, for the benchmarks beside this file (Linux)."""

from __future__ import annotations

import resource


def resident() -> int:
    """Bytes resident now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak() -> int:
    """The largest resident set of the process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
