"""The command line: a thin layer over the Python API, one module per command.

Heavy imports happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import typer

from bpc.cli.bench import bench
from bpc.cli.evaluate import evaluate
from bpc.cli.export import export
from bpc.cli.inspect import inspect
from bpc.cli.oneshot import oneshot
from bpc.cli.prune import prune
from bpc.cli.shrink import shrink
from bpc.cli.trim_vocab import trim_vocab
from bpc.cli.verify import verify

app = typer.Typer(
    name="bpc",
    help="A block-pruning compiler: fine-prune a transformer, compile the masks away exactly, export what is left.",
    epilog="Exit codes: 0 done, 1 unfit input, 2 wrong usage, 3 the result differs from the model, 130 interrupted "
    "(Ctrl-C), 143 terminated (SIGTERM).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (prune, oneshot, inspect, shrink, trim_vocab, verify, export, bench):
    app.command()(command)
app.command("eval")(evaluate)

__all__ = ["app"]
