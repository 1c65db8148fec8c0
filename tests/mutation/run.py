"""Running tests against a mutant: in a forked process, whose import system serves the changed file."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.mutation.coverage import Recorder
from tests.mutation.mutants import Mutant

# What all tests import but what is mutated: loaded once, before the forks.
HEAVY = ("hypothesis", "networkx", "numpy", "torch", "torch._dynamo", "torch.export", "transformers", "pydantic")
OPTIONS = ("-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore")


def record(root: Path, folders: tuple[str, ...], tests: Iterable[str], file: Path) -> None:
    """Run the tests once and write which lines each runs. Raises RuntimeError if one fails."""
    child = os.fork()
    if child == 0:
        recorder = Recorder(root, folders)
        code = pytest.main([*OPTIONS, *tests], plugins=[recorder])
        recorder.write(file) if code == 0 else None
        os._exit(int(code))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise RuntimeError(f"the tests fail without any mutant (pytest's exit code {code})")


def preload() -> None:
    """Import what takes most of the time of a mutant; importing starts no thread, so forks are safe."""
    for name in HEAVY:
        importlib.import_module(name)


def verdict(
    root: Path, mutant: Mutant, tests: list[str], known: dict[str, dict[str, Any]], limit: float
) -> dict[str, Any]:
    """{"outcome": killed · timeout · survived · not run (no test reaches the line), "seconds": …}."""
    if not tests:
        return {"outcome": "not run", "seconds": 0.0}
    start = time.perf_counter()
    chosen, planned = [], 0.0
    for name in tests:
        planned += known[name]["seconds"]
        if chosen and planned > limit:
            break
        chosen.append(name)
    child = os.fork()
    if child == 0:
        _serve(root / mutant.file, mutant.text)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(int(pytest.main([*OPTIONS, *chosen])))
    code = _wait(child, start + 10 * planned + 60)
    outcome = "timeout" if code is None else "survived" if code == 0 else "killed"
    return {"outcome": outcome, "seconds": round(time.perf_counter() - start, 1), "tests": len(chosen)}


def _wait(child: int, until: float) -> int | None:
    """The exit code; None if the process had to be ended."""
    while time.perf_counter() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _serve(file: Path, text: str) -> None:
    """Imports of ``file`` get ``text``."""
    assert not any(name.split(".")[0] in ("passes", "bpc") for name in sys.modules), "imported before the change"
    original = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> CodeType | None:
        if Path(self.path) == file:
            return compile(text, self.path, "exec", dont_inherit=True)
        return original(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
