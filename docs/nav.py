"""A hook of mkdocs: a folder in the navigation stands for all of its pages, in the order of their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    docs = Path(config["docs_dir"])
    config["nav"] = [_unfolded(entry, docs) for entry in config["nav"]]
    return config


def _unfolded(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        return {title: _unfolded(inner, docs) for title, inner in entry.items()}
    if isinstance(entry, list):
        return [_unfolded(inner, docs) for inner in entry]
    if (docs / entry).is_dir():
        return [page.relative_to(docs).as_posix() for page in sorted((docs / entry).glob("*.md"))]
    return entry
