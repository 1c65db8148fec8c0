"""Which tests run which lines of the mutated files, and how long each takes: recorded once, by a pytest plugin."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest


class Recorder:
    """Traces the lines of the files under ``folders`` while each test runs."""

    def __init__(self, root: Path, folders: tuple[str, ...]) -> None:
        self.prefixes = tuple(str(root / folder) for folder in folders)
        self.root = root
        self.tests: dict[str, dict[str, Any]] = {}
        self._lines: set[tuple[str, int]] = set()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(self.prefixes) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines, start = set(), time.perf_counter()
        sys.settrace(self._trace)
        try:
            result = yield
        finally:
            sys.settrace(None)
        lines: dict[str, list[int]] = {}
        for file, line in sorted(self._lines):
            lines.setdefault(str(Path(file).relative_to(self.root)), []).append(line)
        self.tests[item.nodeid] = {"seconds": time.perf_counter() - start, "lines": lines}
        return result  # type: ignore[return-value]

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(self.tests))


def covering(tests: dict[str, dict[str, Any]], file: str, first: int, last: int) -> list[str]:
    """The tests that run a line of the stretch, quickest first."""
    found = [
        (entry["seconds"], name)
        for name, entry in tests.items()
        if any(first <= line <= last for line in entry["lines"].get(file, ()))
    ]
    return [name for _, name in sorted(found)]
