"""Times that were measured on this machine before, in the user's cache: a table of latencies is made once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock


def cache_directory() -> Path:
    """Where tables lie: ``bpc/latency`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Deleting it has them measured again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpc" / "latency"


def remembered(about: Mapping[str, Any], measure: Callable[[], list[float]]) -> list[float]:
    """Seconds that were measured for the same ``about`` (JSON data), or else are now.

    Processes that ask for the same times wait for the first of them: several would disturb each other.
    """
    text = json.dumps(about, sort_keys=True)
    file = cache_directory() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["about"] == json.loads(text):
                return [float(second) for second in found["seconds"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or damaged
        seconds = measure()
        staged = file.with_suffix(".part")
        staged.write_text(json.dumps({"about": about, "seconds": seconds}, indent=1), encoding="utf-8")
        staged.replace(file)
        return seconds
