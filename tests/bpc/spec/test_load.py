"""Reading specs: four spellings of one schema, and errors that say file, key and allowed values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bpc.spec import PRESETS, Rule, Spec, SpecError, ThresholdSpec, change_spec, load_spec

WRITTEN = Spec(
    name="mine",
    rules=(
        Rule(roles=("attention.*",), block=(16, "head_dim"), names=("*.0.*",)),
        Rule(roles=("ffn.*",), block=(1, "in_features"), paired=True, group="mlp"),
    ),
    threshold=ThresholdSpec(final=0.2),
    protect=("*classifier*",),
)
TOML = """
name = "mine"
protect = "*classifier*"
threshold = { final = 0.2 }

[[rules]]
roles = "attention.*"
names = "*.0.*"
block = [16, "head_dim"]

[[rules]]
roles = ["ffn.*"]
block = [1, "in_features"]
paired = true
group = "mlp"
"""
YAML = """
name: mine
protect: ["*classifier*"]
threshold: {final: 0.2}
rules:
  - {roles: "attention.*", names: "*.0.*", block: [16, head_dim]}
  - {roles: ["ffn.*"], block: [1, in_features], paired: true, group: mlp}
"""


@pytest.mark.parametrize(
    ("suffix", "text"), [(".toml", TOML), (".yaml", YAML), (".yml", YAML), (".json", WRITTEN.model_dump_json())]
)
def test_every_format_reads_the_same_spec(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"spec{suffix}"
    path.write_text(text)
    assert load_spec(path) == load_spec(str(path)) == WRITTEN


def test_a_dict_and_a_spec_are_read_too() -> None:
    assert load_spec(json.loads(WRITTEN.model_dump_json())) == WRITTEN
    assert load_spec(WRITTEN) is WRITTEN


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name: str) -> None:
    assert load_spec(name).name == name
    assert load_spec(load_spec(name).model_dump()) == load_spec(name)


def test_a_preset_can_be_changed_key_by_key() -> None:
    spec = load_spec({"preset": "hybrid", "threshold": {"final": 0.3}, "regularization": {"groups": {"ffn": 2.0}}})
    assert spec.rules == PRESETS["hybrid"].rules
    assert (spec.threshold.final, spec.regularization.groups) == (0.3, {"ffn": 2.0})
    assert spec.regularization.final_lambda == PRESETS["hybrid"].regularization.final_lambda
    assert PRESETS["hybrid"].threshold.final is None


def rules(**changes: Any) -> dict[str, Any]:
    return {"rules": [{"roles": "attention.*", "block": [1, 1]} | changes]}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, r"a spec is a preset name, a file, a dict or a bpc.Spec, not a NoneType"),
        ("hybird", r"'hybird' is neither a preset nor .*Presets: hybrid, hybrid-nt"),
        ({"preset": "hybird"}, r"the spec: preset: 'hybird' does not exist\. Presets: hybrid"),
        (
            rules() | {"treshold": {}},
            r"treshold: unknown key \(did you mean 'threshold'\?\); allowed keys: preset, name, r",
        ),
        (
            {"preset": "hybrid", "scores": {"lr": 1}},
            r"scores\.lr: unknown key; allowed keys: init, start, spread, batches, revive, learning_rate",
        ),
        (
            rules(role="x"),
            r"rules\[0\]\.role: unknown key \(did you mean 'roles'\?\); allowed keys: roles, block, names",
        ),
        (rules(block=[32, "d_model"]), r"rules\[0\]\.block\[1\]: 'd_model' is no block size; .*'in_features'"),
        (rules(block=[0, 1]), r"rules\[0\]\.block\[0\]: 0 is no block size; write a number of at least 1"),
        (rules(block="32x32"), r"rules\[0\]\.block: Input should be a list \(got '32x32'\)"),
        (rules() | {"regularization": 3}, r"regularization: Input should be a table of keys \(got 3\)"),
        ({"preset": ["hybrid"]}, r"preset: \['hybrid'\] does not exist"),
        (rules(block=[1]), r"rules\[0\]\.block\[1\]: missing"),
        ({}, r"the spec: rules: missing"),
        ({"rules": []}, r"rules: .*at least 1"),
        (
            rules() | {"method": "l1"},
            r"method: Input should be 'sigmoid_threshold', 'topk' or 'magnitude' \(got 'l1'\)",
        ),
        (rules() | {"threshold": {"final": 2}}, r"threshold\.final: .*less than or equal to 1 \(got 2\)"),
        (rules() | {"schedule": {"warmup": 0.5}}, r"schedule: .*must stay below 1"),
    ],
)
def test_errors_name_key_and_allowed_values(spec: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        load_spec(spec)
    assert len(str(caught.value).splitlines()) == 1


def test_all_errors_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(rules(block=["x", 1], stack="left") | {"floor": -1})
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "rules[0].block[0]",
        "rules[0].stack",
        "floor",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "rules = [", r"a\.toml is not valid TOML"),
        ("a.yaml", "rules: [", r"a\.yaml is not valid YAML"),
        ("a.json", "{", r"a\.json is not valid JSON"),
        ("a.json", "[1]", r"a\.json holds a list"),
        ("a.yaml", "", r"a\.yaml holds nothing; a spec is"),
        ("a.toml", "rulez = 1", r"a\.toml: rulez: unknown key \(did you mean 'rules'\?\)"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match=message):
        load_spec(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"preset": "hybrid", "floor": 0, "floor": 1}', "not valid JSON: 'floor' is given twice"),
        ("a.json", '{"preset": "hybrid", "floor": NaN}', "not valid JSON: NaN is no finite number"),
        ("a.toml", 'preset = "hybrid"\nscores = {init = inf}', r"scores\.init: Input should be a finite number"),
        ("a.yaml", "preset: hybrid\nscores: {init: .nan}", r"scores\.init: Input should be a finite number"),
        ("a.yaml", "floor: 0\nname: x\nfloor: 1", r"not valid YAML: line 3: 'floor' is given twice"),
        ("a.yaml", "name: 2001-99-99", "not valid YAML: month must be"),
        ("a.yaml", "name: !!bool maybe", "not valid YAML"),
        ("a.yaml", "a: &a [x]\nb: [" + "*a, " * 21 + "]", "not valid YAML: more than 20 aliases"),
        ("a.yaml", "[" * 10_000, "not valid YAML"),
        ("a.toml", "a = " + "[" * 10_000, "not valid TOML"),
        ("a.yaml", "1: 2", r"\[1\]: "),
        ("a.yaml", "&a [*a]", "holds a list"),
        ("a.yaml", "&a {rules: *a}", "rules: "),
    ],
)
def test_what_has_not_one_meaning_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match=message):
        load_spec(tmp_path / name)


def test_a_spec_in_python_has_finite_numbers_too() -> None:
    with pytest.raises(SpecError, match=r"scores\.init: Input should be a finite number \(got nan\)"):
        load_spec(rules() | {"scores": {"init": float("nan")}})


def test_aliases_and_merges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("rules:\n- &a {roles: ffn.*, block: [1, 1]}\n- {<<: *a, roles: attention.*}")
    assert [rule.roles for rule in load_spec(path).rules] == [("ffn.*",), ("attention.*",)]


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read the spec .*nope\.toml: No such file"):
        load_spec(tmp_path / "nope.toml")


def test_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(SpecError, match=r"a\.yaml is not UTF-8 \(byte 9"):
        load_spec(tmp_path / "a.yaml")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(SpecError, match="is not valid YAML"):
        load_spec(path)


def test_keys_are_changed_one_by_one_and_the_rest_stays() -> None:
    hybrid = PRESETS["hybrid"]
    found = change_spec(hybrid, {("threshold", "final"): 0.3, ("regularization", "groups", "decoder.*"): 2.0})
    assert (found.name, found.threshold.final, found.regularization.groups) == (
        "hybrid (changed)",
        0.3,
        {"decoder.*": 2.0},
    )
    assert found.model_copy(update={"name": "hybrid", "threshold": hybrid.threshold}).rules == hybrid.rules
    assert change_spec(found, {("floor",): 0.1}).name == "hybrid (changed)"
    with pytest.raises(SpecError, match="treshold: unknown key") as error:
        change_spec("hybrid", {("treshold", "final"): 0.3})
    assert isinstance(error.value.__cause__, ValidationError)
