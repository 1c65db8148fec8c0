"""What options of every command mean: dtypes by their short names, JSON to a file or to the screen, --debug."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

import typer

DEBUG = ContextVar("debug", default=False)  # ``bpc --debug …``: tracebacks beside messages
ALIASES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}


def dtype_named(text: str) -> str:
    """A dtype's full name: fp16 is float16, bf16 bfloat16."""
    return ALIASES.get(text, text)


def is_screen(file: Path | None) -> bool:
    """Whether ``--json -`` was given: JSON on stdout, and nothing else there."""
    return file is not None and str(file) == "-"


def write_json(file: Path | None, text: Callable[[], str]) -> None:
    """Write what ``text`` gives to a file or the screen; None was not asked for."""
    from bpc.writing import write_text

    if is_screen(file):
        typer.echo(text())
    elif file is not None:
        write_text(file, text())
