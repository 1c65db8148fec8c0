"""Golden texts: printed graphs in tests/golden, compared by the `golden` fixture.

python -m pytest tests/passes/rewrite --update-golden      writes them again; read the diff before committing it
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden again instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: the text equals tests/golden/<name>.txt."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            file.write_text(text)
        assert file.exists(), f"no {file}; run with --update-golden"
        assert text == file.read_text(), f"the graph is not as in {file}; if it is meant, run with --update-golden"

    return compare
