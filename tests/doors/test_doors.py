"""The page of families and doors is what was measured; a family and a module are tried for real, in fresh processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.doors.case import FAMILY_NAMES
from tests.doors.page import COLUMNS, page
from tests.doors.run import ROOT, try_family


def test_the_page_is_made_of_the_results() -> None:
    data = json.loads((ROOT / "results" / "doors.json").read_text(encoding="utf-8"))
    assert set(data["families"]) <= set(FAMILY_NAMES)
    assert {door for found in data["families"].values() for door in found} == set(COLUMNS)
    assert (ROOT / "docs" / "doors.md").read_text(encoding="utf-8") == page(data), "python -m tests.doors writes it"


@pytest.mark.parametrize("family", ["distilbert", "nn-encoder"])
def test_a_family_goes_through_the_doors_it_is_said_to(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if family != "nn-encoder" and not request.config.getoption("--every-pair"):
        pytest.skip("a family takes three processes and two exports; --every-pair runs both")
    said = json.loads((ROOT / "results" / "doors.json").read_text(encoding="utf-8"))["families"][family]
    found = try_family(family, tmp_path)
    assert found.keys() == said.keys()
    assert {door for door, why in found.items() if not why} == {door for door, why in said.items() if not why}
