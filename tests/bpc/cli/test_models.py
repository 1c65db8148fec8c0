"""Model directories that are broken, incomplete or of another kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bpc.cli.models import keep_processors, load_model, mask_source
from bpc.terminal.errors import CommandError
from tests.bpc.cli.commands import run


@pytest.fixture
def directory(model_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_directory, tmp_path / "model"))


def change_config(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_broken_config_is_named(directory: Path) -> None:
    (directory / "config.json").write_text("{")
    with pytest.raises(CommandError, match=r"model/config\.json: .*not a valid JSON file"):
        load_model(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "foo"}, r"config\.json: The checkpoint .* has model type `foo`"),
        ({"architectures": ["FooModel"]}, r"names the architecture 'FooModel', which transformers .* does not have"),
        (
            {"intermediate_size": 40},
            r"do not fit config\.json: bert\.\S+ is \(64,\), by the config \(40,\) \(6 such weights\)",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_explained(directory: Path, changes: dict[str, Any], message: str) -> None:
    change_config(directory, **changes)
    with pytest.raises(CommandError, match=message):
        load_model(directory)


def test_truncated_weights_are_named(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(CommandError, match=r"model: the weights cannot be read"):
        load_model(directory)


def test_pickled_weights_are_not_read(directory: Path) -> None:
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(CommandError, match=r"has no model\.safetensors\. Pickled weights .* save_pretrained\(\)"):
        load_model(directory)


def test_weights_that_are_not_there_are_warned_of(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    load_model(directory)
    assert "lacks weights, which are random now: classifier.weight" in capsys.readouterr().err


def test_a_threshold_without_scores_is_refused() -> None:
    with pytest.raises(CommandError, match="--threshold says how to read block scores"):
        mask_source(None, 0.1)


def test_code_of_a_directory_is_run_by_the_flag_alone(directory: Path) -> None:
    change_config(directory, model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    (directory / "mine.py").write_text("1 / 0")
    result = run("export", "--model", directory, "--out", directory / "a.onnx")
    assert result.exit_code == 1
    assert "--trust-remote-code" in result.output
    trusting = run("export", "--model", directory, "--out", directory / "a.onnx", "--trust-remote-code")
    assert "ZeroDivisionError" in trusting.output


def test_the_pooling_of_sentences_is_kept_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source / "1_Pooling", source / "other", tmp_path / "secret"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    paths = ["", "1_Pooling", "../secret", str(tmp_path / "secret"), "2_Normalize"]
    (source / "modules.json").write_text(json.dumps([{"path": path} for path in paths]))
    keep_processors(source, target)
    assert {str(f.relative_to(target)) for f in target.rglob("*.json")} == {"modules.json", "1_Pooling/config.json"}
    (source / "modules.json").write_text("{")
    keep_processors(source, tmp_path / "again")
    assert not [*(tmp_path / "again").rglob("*.json")]
