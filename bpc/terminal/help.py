"""``--help`` that can be read in any terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from typer.core import TyperCommand, TyperGroup

WIDE = 120  # columns that panels need to hold the longest option, its type and a readable text


class _Readable:
    """Panels in wide terminals; in others plain text: a narrow table cuts the names of options."""

    rich_markup_mode: Any

    def format_help(self, ctx: Any, formatter: Any) -> None:
        chosen = self.rich_markup_mode
        if Console().width < WIDE:
            self.rich_markup_mode = None
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            self.rich_markup_mode = chosen


class ReadableCommand(_Readable, TyperCommand):
    """A command with such help."""


class ReadableGroup(_Readable, TyperGroup):
    """A group of commands with such help."""
