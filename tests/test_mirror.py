"""The tests of a source file lie at its own path: bpc/emit/rows.py is tested in tests/bpc/emit/test_rows.py."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bpc",)
WITHOUT = {
    "bpc/spec/errors.py": "one exception class with nothing in it; what raises it is tested",
}


def sources(package: str) -> set[str]:
    """Its files but for __init__.py, __main__.py and the like."""
    files = (ROOT / package).rglob("*.py")
    return {str(file.relative_to(ROOT)) for file in files if not file.name.startswith("__")}


def mirrored(source: str) -> Path:
    path = ROOT / "tests" / source
    return path.with_name(f"test_{path.name}")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_source_file_has_tests_at_its_path(package: str) -> None:
    missing = {source for source in sources(package) if not mirrored(source).exists()}
    excepted = {source for source in WITHOUT if source.startswith(f"{package}/")}
    assert sorted(missing - excepted) == []
    assert sorted(excepted - missing) == []  # has tests now, or is gone: take it off the list
