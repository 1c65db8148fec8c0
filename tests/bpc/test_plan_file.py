"""bpc.json: what stands in it is checked, entry by entry, before any of it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bpc.plan_file import PlanFile, plan_text
from passes.plan.data import Cut, PlanData

PLAN = PlanData(cuts=(Cut("w", (3,), {0: (0, 2)}),), attributes={})
CONTENT: dict[str, Any] = {
    "plans": [PLAN.plain()],
    "granularity": "dims",
    "refusal": "",
    "graph": {"plan": PLAN.plain(), "parameters": 2, "granularity": "dims", "multiple": 1},
    "example": {"args": [{"tensor": "args.0"}], "kwargs": {"x": {"value": None}, "y": {"value": 0.5}}},
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"numbers")
    read = PlanFile(plan_text(CONTENT, [weights]))
    assert [plan.cuts for plan in read.plans] == [PLAN.cuts]
    assert read.graph_plan is not None
    assert read.content.example.model_dump() == {
        "args": ({"tensor": "args.0"},),
        "kwargs": {"x": {"value": None}, "y": {"value": 0.5}},
    }
    assert read.changed_file(tmp_path) is None
    weights.write_bytes(b"others!")
    assert read.changed_file(tmp_path) == weights


def test_any_change_is_noticed_unless_hashes_do_not_count() -> None:
    changed = plan_text(CONTENT, []).replace('"multiple": 1', '"multiple": 2')
    with pytest.raises(ValueError, match="changed after it was written"):
        PlanFile(changed)
    assert PlanFile(changed, check_hashes=False).content.graph.multiple == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99 is unknown to this version of bpc"),
        ({"plans": []}, "plans: "),
        ({"plans": [3]}, r"plans\[0\]: "),
        ({"plans": [{**PLAN.plain(), "cuts": 3}]}, r"plans\[0\]: not a shrink plan: cuts: "),
        ({"graph": {**CONTENT["graph"], "multiple": 0}}, r"graph\.multiple: .*\(got 0\)"),
        ({"graph": {**CONTENT["graph"], "plan": {}}}, r"graph\.plan: not a shrink plan"),
        ({"granularity": 3}, "granularity: "),
        ({"example": {"args": [{"value": []}], "kwargs": {}}}, r"example\.args\[0\]"),
        ({"files": {"../../x.safetensors": ""}}, r"files\.\.\./\.\./x"),
        ({"more": 1}, "more: "),
    ],
)
def test_damage_is_named(change: dict[str, Any], message: str) -> None:
    text = json.dumps({**json.loads(plan_text(CONTENT, [])), **change})
    with pytest.raises(ValueError, match=message):
        PlanFile(text, check_hashes=False)
