"""The documentation builds strictly: every link, every anchor, every page in the navigation; and needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(made)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_nothing_is_fetched(site: Path) -> None:
    """No script, style, image or font from elsewhere; the search's index is beside the pages."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        tags = re.findall(r"<(?:script|img|iframe|source|link)\b[^>]*>", text)
        loaded = [tag for tag in tags if not re.search(r"\brel=[\"']?(?:canonical|next|prev)\b", tag)]
        assert loaded
        assert not [tag for tag in loaded if "//" in tag], page
    assert (site / "search" / "search_index.json").exists()


def test_the_reference_has_signatures_and_arguments(site: Path) -> None:
    text = (site / "api.html").read_text()
    for name in ("bpc.compile", "bpc.DenseModel.export_onnx", "passes.shrink", "passes.Plan.apply_to"):
        assert re.search(rf"id=\"?{re.escape(name)}\b", text), name
    assert "make them from" not in text  # a name in a list of arguments is a name, never the words after it
    assert re.search(r"<code>granularity</code>", text)
