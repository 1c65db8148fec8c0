"""docs/results.md is what its program makes of the raw numbers beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_follows_from_the_results(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    command = [sys.executable, ROOT / "benchmarks" / "tables.py", "--results", ROOT / "results", "--page", page]
    subprocess.run([str(part) for part in command], check=True)
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
