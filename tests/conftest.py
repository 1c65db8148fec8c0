"""Golden texts: printed graphs in tests/golden, compared by the `golden` fixture.

python -m pytest tests/passes/rewrite --update-golden      writes them again; read the diff before committing it

Properties draw the same few examples on every run; with ``--hypothesis-profile=long`` new and more ones, and a failure
prints the blob that repeats it (``@reproduce_failure``).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch._dynamo.config
from hypothesis import HealthCheck, settings

import bpc.timing.remember
from tests.exports import remembered_exports

os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="bpc-tests-"))  # read when datasets is imported

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


@pytest.fixture(autouse=True, scope="module")
def every_operator_is_inferred_anew(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny graphs hardly repeat an operator: torch's cache of inferred shapes costs them a third of a trace.

    It stays on in the tests of whole commands, and where tests look at what is left behind.
    """
    fast = ("passes", "fuzz", "bpc/emit", "test_pages", "test_readme")
    path = request.path.relative_to(Path(__file__).parent).as_posix()
    with torch._dynamo.config.patch(fake_tensor_cache_enabled=not path.startswith(fast) or "test_session" in path):
        yield


@pytest.fixture(autouse=True, scope="session")
def times_are_remembered_for_a_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """And not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("latency")
        patch.setattr(bpc.timing.remember, "cache_directory", lambda: directory)
        yield


@pytest.fixture(autouse=True, scope="session")
def exports_are_remembered() -> Iterator[None]:
    with remembered_exports():
        yield


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
