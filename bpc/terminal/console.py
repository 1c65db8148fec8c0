"""The console commands print to, and other libraries' progress bars out of its way."""

from __future__ import annotations

import logging
import sys
import warnings

from rich.console import Console
from rich.table import Table

from bpc import ranks

WIDTH_WITHOUT_TERMINAL = 140


def quiet_console() -> Console:
    """A console, which of several ranks the first one has; transformers' own bars and notes are switched off."""
    import transformers

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    if not ranks.is_first():  # it would say what the first says
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(width=width, highlight=False, quiet=not ranks.is_first())


def print_whole(console: Console, table: Table) -> None:
    """Print a table as wide as it is: on a narrow terminal, long lines are a smaller evil than columns left out."""
    wanted = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(wanted, console.width)  # print(width=…) never goes beyond it
    console.print(table)
