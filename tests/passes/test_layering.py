"""The direction of imports: passes knows nothing of bpc, analyses nothing of rewrites, and nothing goes in circles.

The packages of `passes` stand on one another in this order: ir, ops, then structure, frontend, analysis and verify side
by side, then plan, rewrite and the modules that put them together.

Every import counts, wherever it stands: one inside a function, or for type checkers only, is a dependency all the same.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[2]

# {files: packages they must not import}
FORBIDDEN = {
    "passes": ("bpc", "transformers"),
    "bpc/scores": ("bpc.spec", "bpc.program"),
    "bpc/timing": ("bpc.emit", "bpc.bench"),
    "bpc/emit": ("bpc.dense", "bpc.bench"),
    "bpc/bench": ("bpc.cli",),
}
# {package: all of `passes` that it may import besides itself}
ALLOWED = {
    "passes/ir": (),
    "passes/ops": ("passes.ir",),
    "passes/structure": ("passes.ir", "passes.ops"),
    "passes/frontend": ("passes.ir", "passes.ops"),
    "passes/analysis": ("passes.ir", "passes.ops", "passes.options", "passes.plan"),
    "passes/verify": ("passes.ir", "passes.ops"),
    "passes/masks": ("passes.ir", "passes.strict"),
    "passes/plan": ("passes.ir", "passes.strict", "passes.verify"),
    "passes/rewrite": ("passes.ir", "passes.ops", "passes.masks", "passes.analysis", "passes.plan", "passes.options"),
}


def imports(source: str) -> Iterator[tuple[str, str | None]]:
    """(module, name taken from it) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield from ((node.module, alias.name) for alias in node.names)


def targets(source: str, modules: Collection[str]) -> set[str]:
    """Those of ``modules`` a file imports: ``from a import b`` means the module a.b where there is one, else a."""
    pairs = [(module, f"{module}.{name}") for module, name in imports(source)]
    return {inner if inner in modules else module for module, inner in pairs} & set(modules)


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in packages)


def breaches(source: str, forbidden: tuple[str, ...]) -> list[str]:
    names = {full for module, name in imports(source) for full in (module, f"{module}.{name}")}
    return sorted(name for name in names if within(name, forbidden))


def strays(source: str, top: str, allowed: tuple[str, ...]) -> list[str]:
    """What a file imports of the package ``top`` beyond ``allowed``."""
    names = {f"{module}.{name}" if module == top and name else module for module, name in imports(source)}
    return sorted(name for name in names if within(name, (top,)) and not within(name, allowed))


def sources(package: str) -> dict[str, str]:
    """{module name: text} of a package's files; a package's own name stands for its ``__init__``."""
    files = (ROOT / package).rglob("*.py")
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f.read_text() for f in files}


def cycles(modules: Mapping[str, str], depth: int | None = None) -> list[list[str]]:
    """Groups of modules that import each other in a circle; with ``depth``, of packages named by so many parts.

    A package and its own files do not count as two, nor does the top package, which offers the public names.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, source in modules.items():
        for target in targets(source, modules):
            ends = [".".join(n.split(".")[:depth]) for n in (name, target)]
            if ends[0] != ends[1] and (depth is None or all(e.count(".") == depth - 1 for e in ends)):
                graph.add_edge(*ends)
    return sorted(sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(f.relative_to(ROOT)): b for f in files if (b := breaches(f.read_text(), FORBIDDEN[folder]))}
    assert not found


@pytest.mark.parametrize("folder", ALLOWED)
def test_packages_stand_on_those_below(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    allowed = (folder.replace("/", "."), *ALLOWED[folder])
    assert not {str(f.relative_to(ROOT)): s for f in files if (s := strays(f.read_text(), "passes", allowed))}


def test_every_package_has_its_place() -> None:
    packages = {f"passes/{f.parent.name}" for f in (ROOT / "passes").glob("*/*.py")}
    assert packages == set(ALLOWED)


@pytest.mark.parametrize("package", ["passes", "bpc"])
def test_no_modules_import_each_other(package: str) -> None:
    assert cycles(sources(package)) == []


@pytest.mark.parametrize("package", ["passes", "bpc"])
def test_no_packages_import_each_other(package: str) -> None:
    assert cycles(sources(package), depth=2) == []


@pytest.mark.parametrize(
    "source",
    [
        "import bpc",
        "import bpc.scores as m",
        "from bpc import scores",
        "def f():\n    from bpc.spec import Spec",
        "if TYPE_CHECKING:\n    import bpc.spec",
    ],
)
def test_the_check_sees_every_form_of_import(source: str) -> None:
    assert breaches(source, ("bpc",))


def test_the_check_does_not_go_by_prefix_alone() -> None:
    assert not breaches("import bpcx, passes.rewriter", ("bpc", "passes.rewrite"))


def test_strays_are_told_by_package_and_not_by_prefix() -> None:
    source = (
        "import passes.ir.graph, torch\nfrom passes import analysis, ir\nfrom passes.iris import passes\nimport passes"
    )
    assert strays(source, "passes", ("passes.ir",)) == ["passes", "passes.analysis", "passes.iris"]


@pytest.mark.parametrize(
    "back",
    [
        "import p.a.one",
        "from p.a import one",
        "from p.a.one import name",
        "def f():\n    from p.a.one import name",
        "if TYPE_CHECKING:\n    from p.a.one import Name",
    ],
)
def test_the_check_sees_every_form_of_circle(back: str) -> None:
    modules = {"p": "from p.a.one import name", "p.a": "", "p.a.one": "from p.b import two", "p.b": "", "p.b.two": back}
    assert cycles(modules) == [["p.a.one", "p.b.two"]]
    assert cycles(modules, depth=2) == [["p.a", "p.b"]]


def test_packages_can_go_in_a_circle_where_their_modules_do_not() -> None:
    modules = {"p.a.one": "import p.b.one", "p.b.one": "", "p.b.two": "import p.a.two", "p.a.two": ""}
    assert cycles(modules) == []
    assert cycles(modules, depth=2) == [["p.a", "p.b"]]
    assert cycles({"p.a.one": "import p.a.two", "p.a.two": ""}, depth=2) == []
