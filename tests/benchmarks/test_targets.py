"""The table of docs/choosing-a-target.md is what its program makes of results/targets.json."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.targets.runs import table

ROOT = Path(__file__).parents[2]


def test_the_table_follows_from_the_results() -> None:
    runs = json.loads((ROOT / "results" / "targets.json").read_text(encoding="utf-8"))["runs"]
    assert len(runs) == 9
    assert table(runs) in (ROOT / "docs" / "choosing-a-target.md").read_text(encoding="utf-8")
