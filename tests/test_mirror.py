"""Every source file has its tests under its own path: tests/passes/ops/test_glu.py for passes/ops/glu.py."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Files without tests of their own, and why.
ELSEWHERE = {
    "passes/analysis/roles.py": "an old name of passes/structure/roles.py",
    "passes/ops/rule.py": "protocols and a dataclass",
    "passes/plan/errors.py": "an exception",
    "passes/program.py": "an old name of passes/frontend/trace.py",
    "passes/verify/errors.py": "exceptions",
}


@pytest.mark.parametrize("package", ["passes"])
def test_tests_mirror_the_sources(package: str) -> None:
    files = [f.relative_to(ROOT) for f in sorted((ROOT / package).rglob("*.py")) if not f.name.startswith("__")]
    missing = {f.as_posix() for f in files if not (ROOT / "tests" / f.parent / f"test_{f.name}").exists()}
    assert missing == {name for name in ELSEWHERE if name.startswith(f"{package}/")}
