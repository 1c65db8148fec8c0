"""Golden texts: printed graphs in tests/golden, compared by the `golden` fixture.

python -m pytest tests/passes/rewrite --update-golden      writes them again; read the diff before committing it

Properties draw the same few examples on every run; with ``--hypothesis-profile=long`` new and more ones, and a failure
prints the blob that repeats it (``@reproduce_failure``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "quick", max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW
)
settings.register_profile(
    "long",
    max_examples=25,
    deadline=None,
    derandomize=False,
    database=None,
    print_blob=True,
    suppress_health_check=SLOW,
)
settings.load_profile("quick")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden again instead of comparing")
    parser.addoption("--every-pair", action="store_true", help="whole matrices where CI takes a part of them")


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
