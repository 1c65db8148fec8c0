"""The console commands print to, and other libraries' progress bars out of its way."""

from __future__ import annotations

import logging
import sys

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 140


def quiet_console() -> Console:
    """A console; transformers' own bars and notes are switched off."""
    import transformers

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
