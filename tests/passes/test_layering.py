"""The direction of imports: passes knows nothing of bpc, and analyses nothing of rewrites."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# {files: packages they must not import}
FORBIDDEN = {
    "passes": ("bpc", "transformers"),
    "passes/analysis": ("passes.rewrite", "passes.driver", "passes.planning", "passes.masks"),
    "passes/masks": ("passes.rewrite", "passes.analysis"),
}


def imports(source: str) -> Iterator[str]:
    """Every module a file imports, anywhere in it: functions and type checking included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(source: str, forbidden: tuple[str, ...]) -> list[str]:
    return [name for name in imports(source) if any(name == f or name.startswith(f + ".") for f in forbidden)]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(f.relative_to(ROOT)): b for f in files if (b := breaches(f.read_text(), FORBIDDEN[folder]))}
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import bpc",
        "import bpc.masks as m",
        "from bpc import masks",
        "def f():\n    from bpc.spec import Spec",
        "if TYPE_CHECKING:\n    import bpc.spec",
    ],
)
def test_the_check_sees_every_form_of_import(source: str) -> None:
    assert breaches(source, ("bpc",))


def test_the_check_does_not_go_by_prefix_alone() -> None:
    assert not breaches("import bpcx, passes.rewriter", ("bpc", "passes.rewrite"))
