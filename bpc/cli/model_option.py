"""``--model``: a directory or a repository of the hub, with the option's name or first on the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from bpc.terminal.errors import FAILED
from bpc.terminal.help import ReadableCommand


def model_option(what: str) -> Any:
    """The option, for a command's ``model: Annotated[Path, …]``."""
    return typer.Option(help=f"{what}; or owner/name on the hub. May stand first, without --model.", callback=fetched)


def fetched(context: typer.Context, path: Path) -> Path:
    """The directory or file itself, or the hub cache's copy of a repository, fetched where it is missing."""
    if context.resilient_parsing or path.exists():
        return path
    from bpc.hub.note import NoteError
    from bpc.hub.repository import local_directory

    try:
        return local_directory(path, code=bool(context.params.get("trust_remote_code")))
    except NoteError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(FAILED) from None


class ModelFirst(ReadableCommand):
    """A command whose first word may be its model; a recipe (``.toml``) stays what it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        takes = any("--model" in parameter.opts for parameter in self.params)
        named = any(word == "--model" or word.startswith("--model=") for word in args)
        if takes and not named and args and not args[0].startswith("-") and not args[0].endswith(".toml"):
            args = ["--model", *args]
        return super().parse_args(ctx, args)
