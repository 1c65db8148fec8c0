"""A model by its directory or its name on the hub, first on the line or with its option."""

from __future__ import annotations

from pathlib import Path

import pytest

import bpc.hub.repository
from bpc.hub.note import NoteError
from tests.bpc.cli.commands import run


def test_a_model_may_stand_first(model_directory: Path) -> None:
    first = run("inspect", model_directory, "--spec", "struct")
    assert first.exit_code == 0, first.output
    assert first.output == run("inspect", "--spec", "struct", "--model", model_directory).output
    both = run("inspect", model_directory, "--model", model_directory)
    assert both.exit_code == 2  # a word too many


def test_a_name_on_the_hub_becomes_a_directory(model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def local(path: Path, revision: str | None = None, *, code: bool = False) -> Path:
        asked.append((str(path), code))
        if str(path) == "some/one":
            return model_directory
        raise NoteError(f"{path} cannot be had")

    monkeypatch.setattr(bpc.hub.repository, "local_directory", local)
    found = run("inspect", "some/one", "--spec", "struct")
    assert found.exit_code == 0, found.output
    assert "masked" in found.output
    missing = run("inspect", "--model", "some/other")
    assert missing.exit_code == 1
    assert "some/other cannot be had" in missing.output
    assert asked == [("some/one", False), ("some/other", False)]
