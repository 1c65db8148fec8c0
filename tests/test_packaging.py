"""What is uploaded is whole: dependencies are declared, and the source archive has the documentation and the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = {
    "onnxruntime": "the extras cpu and gpu",
    "openvino": "the extra openvino",
    "torch_pruning": "the extra peers",
    "optuna": "the extra sweep",
}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported() -> Iterator[tuple[str, Path]]:
    for package in ("bpc", "passes"):
        for file in (ROOT / package).rglob("*.py"):
            for name in re.findall(
                r"^ *(?:from|import) (\w+)[\w.]*(?: import\b| as\b|,|$)", file.read_text(), re.MULTILINE
            ):
                yield name, file


def test_what_is_imported_is_installed_with_us() -> None:
    """By ourselves, or by what we ask for: a library that is only there by chance is not."""
    lines = [Requirement(line) for line in PROJECT["dependencies"]]
    asked = {_canonical(line.name) for line in lines if line.marker is None or line.marker.evaluate()}
    plain = [Requirement(r) for d in asked for r in requires(d) or ()]
    brought = {_canonical(r.name) for r in plain if r.marker is None or r.marker.evaluate({"extra": ""})}
    homes = packages_distributions()
    known = set(sys.stdlib_module_names) | {"bpc", "passes"} | set(OPTIONAL)
    for name, file in _imported():
        if name not in known:
            assert {_canonical(home) for home in homes.get(name, ())} & (asked | brought), f"{file}: {name}"


def test_the_source_archive(tmp_path: Path) -> None:
    build = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, env=env, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
        (info,) = (name for name in tar.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO"))
        read = tar.extractfile(info)
        assert read is not None
        metadata = Metadata.from_email(read.read())  # raises for what an index would refuse
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*") if page.is_file()}
    assert pages <= names
    assert {
        "mkdocs.yml",
        "constraints.txt",
        "CHANGELOG.md",
        "tests/test_packaging.py",
        "results/generation.json",
    } <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".", "site/", "out/"))]
    assert metadata.name == PROJECT["name"]
    assert metadata.description_content_type == "text/markdown"
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", metadata.description or "")
    assert len(linked) > 10
    assert not [link for link in linked if not (ROOT / link).exists()]
