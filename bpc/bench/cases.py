"""What the options of a benchmark ask for: shapes, runtimes and dtypes that exist."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bpc.terminal.errors import CommandError


def runs(
    runtimes: Sequence[str], dtypes: Sequence[str], dense_dtype: str | None, device: str = "cpu"
) -> list[tuple[str, str]]:
    """The (runtime, dtype) pairs that exist among those asked for. Raises `CommandError` for a name that fits none."""
    from bpc.bench.sides import DTYPES, require_device  # loads the runtimes

    if device not in DTYPES:
        raise CommandError(f"--device {device}: choose {', '.join(DTYPES)}")
    offered = DTYPES[device]
    for name in runtimes:
        if name not in offered:
            raise CommandError(f"--runtime {name} on {device}: choose {', '.join(offered)}")
        try:
            require_device(device, name)
        except ValueError as error:
            raise CommandError(str(error)) from error
    known = {kind for name in runtimes for kind in offered[name]}
    for kind in (*dtypes, *([dense_dtype] if dense_dtype else [])):
        if kind not in known:
            raise CommandError(f"--dtype {kind}: {', '.join(runtimes)} on {device} have {', '.join(sorted(known))}")
    return [(name, kind) for name in runtimes for kind in dtypes if {kind, dense_dtype or kind} <= set(offered[name])]


def parse_shape(text: str) -> tuple[int, int]:
    """(batch, length) of "8x128". Raises `CommandError`."""
    batch, _, length = text.partition("x")
    if not all(size.isascii() and size.isdecimal() and int(size) for size in (batch, length)):
        raise CommandError(f"--shape {text}: write batch x length, e.g. 8x128")
    return int(batch), int(length)


def check_threads(count: int | None) -> None:
    """Raise `CommandError` for more threads than the machine has: they would only wait for each other."""
    available = os.cpu_count() or 1
    if count is not None and count > available:
        raise CommandError(f"--threads {count}: this machine has {available}")
