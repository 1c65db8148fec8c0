"""Recipes: the options of a command in a TOML file, given as its argument; options on the command line win."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from bpc.terminal.errors import CommandError, reports_errors

SWEEP = "sweep"  # a table for `bpc sweep`, which no single run reads


def read_recipe(file: Path, names: dict[str, str]) -> dict[str, Any]:
    """{parameter: value} of a recipe; ``names``: {option without dashes: its parameter}. Raises `CommandError`.

    A table under ``columns`` is role = "COLUMN"; one under ``spec`` is a spec; one under ``sweep`` stays as it is.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CommandError(f"{file}: there is no such recipe") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} is no TOML: {error}") from error
    found = {}
    for key, value in content.items():
        option = key.replace("_", "-")
        if key == SWEEP and isinstance(value, dict):
            found[key] = value
            continue
        if option not in names:
            raise CommandError(f"{file}: {key} is no option of this command; it has {', '.join(sorted(names))}")
        if isinstance(value, dict) and option == "columns":
            value = [f"{role}={column}" for role, column in value.items()]
        elif isinstance(value, dict) and option == "spec":
            value = json.dumps(value)
        elif isinstance(value, dict):
            raise CommandError(f"{file}: {key} is a table; give a value")
        found[names[option]] = value
    return found


@reports_errors
def _use(context: typer.Context, file: Path | None) -> None:
    if file is None or context.resilient_parsing:
        return
    found = read_recipe(file, option_names(context))
    context.meta[SWEEP] = found.pop(SWEEP, None)
    context.default_map = {**(context.default_map or {}), **found}


def option_names(context: typer.Context) -> dict[str, str]:
    """{option without dashes: its parameter} of a command."""
    return {
        option.lstrip("-"): parameter.name
        for parameter in context.command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--") and parameter.name
    }


def _callback(context: typer.Context, file: Path | None) -> Path | None:
    _use(context, file)
    return file


Recipe: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        is_eager=True, callback=_callback, show_default=False, help="TOML file with any of the options below."
    ),
]
