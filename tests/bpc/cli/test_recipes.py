"""Options from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpc.cli.recipes import read_recipe
from bpc.terminal.errors import CommandError
from tests.bpc.cli.commands import run

NAMES = {"model": "model", "eval": "evaluate", "columns": "columns", "spec": "spec", "batch-size": "batch_size"}


def test_tables_of_columns_and_specs_are_options_too(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('model = "m"\neval = "e"\nbatch_size = 4\n[columns]\ntags = "ner"\n[spec]\npreset = "struct"\n')
    found = read_recipe(file, NAMES)
    assert json.loads(found.pop("spec")) == {"preset": "struct"}
    assert found == {"model": "m", "evaluate": "e", "batch_size": 4, "columns": ["tags=ner"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model = ", "r.toml is no TOML"),
        ("epocs = 1", "epocs is no option of this command; it has batch-size, columns"),
        ("[model]\na = 1", "model is a table; give a value"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(content)
    with pytest.raises(CommandError, match=message):
        read_recipe(tmp_path / "r.toml", NAMES)
    with pytest.raises(CommandError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml", NAMES)


def test_options_win_over_the_recipe_and_a_dry_run_writes_nothing(
    model_directory: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f"model = {str(model_directory)!r}\ndata = {str(texts)!r}\nout = {str(out)!r}\nepochs = 3\ndry_run = true\n"
        'batch_size = 8\n[spec]\npreset = "struct"\n'
    )
    result = run("prune", recipe, "--epochs", 5)
    assert result.exit_code == 0, result.output
    assert "epochs: pruning 5; 40 steps, about" in result.output
    assert ": 12 of 14 linears masked" in result.output
    assert "GB for weights, gradients and optimizer" in result.output
    assert not out.exists()
    wrong = run("prune", tmp_path / "none.toml")
    assert wrong.exit_code == 1
    assert "no such recipe" in wrong.output
