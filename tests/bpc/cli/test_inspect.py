"""What `bpc inspect` says of a spec and of masks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpc.scores.files import save_masks
from tests.bpc.cli.commands import heads_masks, run


def test_inspect_shows_what_a_spec_matches(model_directory: Path) -> None:
    result = run("inspect", "--model", model_directory, "--spec", "struct")
    assert result.exit_code == 0
    assert "12 of 14 linears masked" in result.output
    assert "8 x 32" in result.output


def test_inspect_leaves_no_column_out_on_a_narrow_terminal(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpc.terminal.console.WIDTH_WITHOUT_TERMINAL", 60)
    result = run("inspect", "--model", model_directory, "--spec", "struct", "--every-weight")
    weight = "bert.encoder.layer.1.attention.self.value.weight"
    (line,) = [line for line in result.output.splitlines() if weight in line]
    assert line.split()[-3:] == ["masked", "attention", "20"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spec", "hybird"], "'hybird' is neither a preset nor"),
        (["--spec", "missing.toml"], "cannot read the spec missing.toml"),
    ],
)
def test_a_bad_spec_is_one_line_and_exit_code_1(model_directory: Path, arguments: list[str], message: str) -> None:
    result = run("inspect", "--model", model_directory, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_missing_model_says_what_a_model_directory_is(tmp_path: Path) -> None:
    assert "is no directory" in run("inspect", "--model", tmp_path / "nope").output
    result = run("inspect", "--model", tmp_path)
    assert result.exit_code == 1
    assert "has no config.json" in result.output


def test_inspect_with_masks_says_what_goes(model_directory: Path, tmp_path: Path) -> None:
    save_masks(heads_masks(model_directory), tmp_path / "masks.safetensors")
    out = tmp_path / "explained.json"
    result = run("inspect", "--model", model_directory, "--masks", tmp_path / "masks.safetensors", "--json", out)
    assert result.exit_code == 0
    assert "heads: 3 live, 1 dead" in result.output
    assert "dims 10-39: dead" in result.output
    states = {
        block["name"]: [unit["state"] for unit in block["units"]] for block in json.loads(out.read_text())["blocks"]
    }
    assert states["attention.0"] == ["live", "dead", "live", "live"]
    assert set(states["ffn.1"]) == {"live"}
