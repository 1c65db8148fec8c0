"""The specs in docs/pattern-spec.md load, and its table of presets lists what exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bpc.spec import PRESETS, load_spec

DOCS = Path(__file__).parents[3] / "docs" / "pattern-spec.md"
TEXT = DOCS.read_text()


def snippet(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    return str(text)


def test_the_files_load(tmp_path: Path) -> None:
    for language in ("toml", "yaml"):
        path = tmp_path / f"spec.{language}"
        path.write_text(snippet(language))
        assert load_spec(path).rules


def test_the_python_runs() -> None:
    names: dict[str, Any] = {}
    exec(snippet("python"), names)
    assert names["spec"].threshold_schedule().final == 0.2


def test_every_preset_is_listed() -> None:
    table = TEXT[TEXT.index("## Presets") : TEXT.index("## Rules")]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])} == set(PRESETS)
