"""The tutorials are what is in the tree, and what they say to run, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = {
    "adding-an-operator.md": ("rule", "passes/ops/glu.py", "passes/ops/table.py"),
    "adding-a-pass.md": ("pass", "passes/rewrite/drop_noop_slices.py", "passes/driver.py"),
}


def blocks(text: str, kind: str) -> list[str]:
    """Bodies of the fenced blocks whose info string is ``kind``."""
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [body for info, body in fenced if info == kind]


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_tutorial_is_what_is_in_the_tree(name: str) -> None:
    kind, file, table = TUTORIALS[name]
    text = (ROOT / "docs" / name).read_text()
    assert blocks(text, f"python {kind}") == [(ROOT / file).read_text()]
    entry = next(b for b in blocks(text, "") if b.startswith("    "))
    assert entry in (ROOT / table).read_text()


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_tutorial_runs(name: str) -> None:
    (snippet,) = blocks((ROOT / "docs" / name).read_text(), "python test")
    exec(compile(snippet, name, "exec"), {"__name__": "tutorial"})
