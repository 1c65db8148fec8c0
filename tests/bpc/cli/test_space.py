"""The [sweep] table of a recipe: what it may say, and what is said where it does not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest
import typer

from bpc.cli import app
from bpc.cli.space import Range, Space, read_space
from bpc.spec import SpecError
from bpc.terminal.errors import CommandError


def space(table: str, *line: str) -> Space:
    command = typer.main.get_command(app).commands["prune"]  # type: ignore[attr-defined]
    with command.make_context("prune", ["--model", ".", "--data", "d", "--out", "o", *line]) as context:
        return read_space(context, tomllib.loads(table), Path("r.toml"))


def chosen(of: Space, **values: Any) -> dict[str, Any]:
    return of.choose(optuna.trial.FixedTrial(values))


def test_options_and_keys_of_the_spec_become_the_parameters_of_a_run() -> None:
    found = space(
        "trials = 3\nlearning_rate = { low = 1e-5, high = 1e-3, log = true }\n"
        '"spec.regularization.final_lambda" = [5, 40]\n'
        'freeze_embeddings = [true, false]\nteacher = ["a", "b"]\nspec.threshold.final = { low = 0, high = 1 }\n'
    )
    values = chosen(
        found,
        **{"learning_rate": 1e-4, "spec.regularization.final_lambda": 40, "freeze_embeddings": True, "teacher": "b"},
        **{"spec.threshold.final": 0.25},
    )
    options = found.options({"spec": "hybrid", "epochs": 4.0}, values)
    spec = json.loads(options.pop("spec"))
    assert (spec["regularization"]["final_lambda"], spec["threshold"]["final"], spec["name"]) == (
        40,
        0.25,
        "hybrid (changed)",
    )
    assert options == {"epochs": 4.0, "learning_rate": 1e-4, "freeze_embeddings": True, "teacher": Path("b")}


def test_a_spec_may_be_varied_as_a_whole_and_in_a_key() -> None:
    found = space('spec = ["struct", { preset = "block", fill = true }]\n"spec.floor" = [0.1]\n')
    (first, second) = (found.options({"spec": "hybrid"}, chosen(found, **point))["spec"] for point in found.grid())
    assert [json.loads(spec)["name"] for spec in (first, second)] == ["struct (changed)", "block (changed)"]
    assert [json.loads(spec)["fill"] for spec in (first, second)] == [False, True]
    assert {json.loads(spec)["floor"] for spec in (first, second)} == {0.1}


def test_a_range_is_whole_where_fractions_are_not_taken() -> None:
    found = space(
        "batch_size = { low = 8, high = 32, step = 8 }\ntarget_speedup = { low = 2, high = 4, step = 1 }\n"
        "spec.scores.batches = { low = 1, high = 3 }\n"
    )
    assert [axis.whole for axis in found.axes] == [True, False, True]
    assert [axis.all() for axis in found.axes] == [[8, 16, 24, 32], [2, 3, 4], [1, 2, 3]]
    assert found.count == len(found.grid()) == 36
    assert found.grid()[1] == {"batch_size": 8, "target_speedup": 2, "spec.scores.batches": 2}


def test_steps_end_at_the_last_that_fits() -> None:
    assert Range(low=0.1, high=0.75, step=0.2).last == pytest.approx(0.7)
    assert Range(low=0.1, high=0.7, step=0.2).last == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("epocs = [1]", "sweep.epocs: is no option of bpc prune; it has batch_size, bf16, dense_epochs"),
        ('out = ["a", "b"]', "sweep.out: cannot be varied: trials have to have it in common"),
        ("resume = [true]", "sweep.resume: cannot be varied"),
        ("epochs = []", "sweep.epochs: is an empty list"),
        ("epochs = [1, 2, 1]", "sweep.epochs: 1.0 is given twice"),
        ("epochs = 3", r"sweep.epochs: give a list of values, or \{low = …, high = …\} \(got 3\)"),
        ("epochs = [-1]", "sweep.epochs: -1: .*greater than or equal to 0"),
        ('epochs = ["many"]', "sweep.epochs: 'many': .*number"),
        ("batch_size = { low = 1, high = 9.5 }", "sweep.batch_size: 9.5: .*integer"),
        ("epochs = { low = 3, high = 3 }", "sweep.epochs: low = 3 is not below high = 3: the range is empty"),
        ("epochs = { low = 0, high = 3, log = true }", "log = true needs low above 0"),
        ("epochs = { low = 1, high = 3, log = true, step = 1 }", "log and step exclude each other"),
        ("epochs = { low = 1, high = 3, step = 5 }", "step = 5 leads beyond high = 3"),
        ("epochs = { low = 1, hgih = 3 }", "sweep.epochs.high: Field required"),
        (
            "epochs = { low = 1, high = 3 }",
            "sweep.trials is missing: without it all combinations",
        ),
        ("trials = 0\nepochs = [1]", "sweep.trials: .*greater than or equal to 1"),
        ('trials = 3\nsampler = "cma"\nepochs = [1]', "sweep.sampler: .*'tpe' or 'random'"),
        ('sampler = "tpe"\nepochs = [1]', "sweep.sampler chooses among values; give sweep.trials too"),
        ("trials = 3", "varies nothing"),
        ("epochs.first = [1]", "sweep.epochs.low: Field required"),
        ('"epochs.first" = [1]', "epochs has no keys of its own; only spec has"),
        ("spec.regularization.lambda = [1]", "sweep.spec.regularization.lambda: 1: .*unknown key"),
        ("spec.threshold.final = { low = 0.5, high = 2 }", "sweep.spec.threshold.final: 2: .*less than or equal to 1"),
        ('spec = ["hybird"]', "sweep.spec: 'hybird': .*neither a preset nor"),
        ("spec.threshold = {}", "sweep.spec.threshold: is an empty table"),
        ('"spec.floor" = [0.1]\n[spec]\nfloor = [0.2]', "sweep.spec.floor is given twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(table: str, message: str) -> None:
    with pytest.raises(CommandError, match=message) as error:
        space(table)
    assert str(error.value).startswith("r.toml: ")


def test_an_option_on_the_command_line_is_not_varied_too() -> None:
    with pytest.raises(CommandError, match=r"sweep\.epochs: is given as --epochs too: take it off the command line"):
        space("epochs = [1, 2]", "--epochs", "3")


def test_a_value_that_only_others_make_wrong_is_left_to_its_trial() -> None:
    found = space("spec.schedule.final_warmup = [2, 9.5]")
    with pytest.raises(SpecError, match="must stay below 1"):
        found.options({"spec": "hybrid"}, {"spec.schedule.final_warmup": 9.5})


def test_the_recipe_of_the_page_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text()
    (recipe,) = (block.partition("```")[0] for block in page.split("```toml\n")[1:])
    command = typer.main.get_command(app).commands["sweep"]  # type: ignore[attr-defined]
    names = {o.removeprefix("--").replace("-", "_") for parameter in command.params for o in parameter.opts}
    held = tomllib.loads(recipe)
    assert held.keys() - {"sweep"} <= names
    found = space(recipe.partition("[sweep]\n")[2])
    assert (found.trials, len(found.axes), found.axes[2].name) == (20, 3, "spec.regularization.groups.ffn")
