"""Exit codes of `bpc verify`: 0 agrees, 1 differs, 2 cannot be judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from bpc.scores.files import save_masks
from tests.bpc.cli.commands import heads_masks, run

VALUE = "bert.encoder.layer.0.attention.self.value.weight"


@pytest.fixture(scope="module")
def masks(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masks") / "masks.safetensors"
    save_masks(heads_masks(model_directory), path)
    return path


@pytest.fixture(scope="module")
def small(model_directory: Path, masks: Path) -> Path:
    out = masks.parent / "small"
    assert run("shrink", "--model", model_directory, "--masks", masks, "--out", out).exit_code == 0
    return out


def test_a_model_agrees_with_the_masked_one_and_differs_from_the_unmasked(
    model_directory: Path, masks: Path, small: Path
) -> None:
    against = ("--against", model_directory, "--reweightings", 1)
    agrees = run("verify", small, *against, "--masks", masks)
    assert agrees.exit_code == 0, agrees.output
    assert agrees.output.count("agrees: ") == 6
    differs = run("verify", small, *against)
    assert differs.exit_code == 1
    assert "bert.encoder.layer.0" in differs.output


def test_without_the_masked_model_the_command_says_what_it_left_out(small: Path) -> None:
    result = run("verify", small)
    assert result.exit_code == 0
    assert "not checked: " in result.output


def test_what_cannot_be_judged_is_neither(model_directory: Path, masks: Path, small: Path, tmp_path: Path) -> None:
    no_model = run("verify", tmp_path)
    assert no_model.exit_code == 2
    assert "is no saved dense model" in no_model.output
    save_file({VALUE: load_file(masks)[VALUE].float()}, tmp_path / "scores.safetensors")
    no_masks = run("verify", small, "--against", model_directory, "--masks", tmp_path / "scores.safetensors")
    assert no_masks.exit_code == 2
    assert "is torch.float32; masks are bool" in no_masks.output
