"""The command line: a thin layer over the Python API, one module per command.

Heavy imports happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bpc.cli.bench import bench
from bpc.cli.compare import compare
from bpc.cli.evaluate import evaluate
from bpc.cli.export import export
from bpc.cli.inspect import inspect
from bpc.cli.model_option import ModelFirst
from bpc.cli.oneshot import oneshot
from bpc.cli.prune import prune
from bpc.cli.shrink import shrink
from bpc.cli.sweep import sweep
from bpc.cli.trim_vocab import trim_vocab
from bpc.cli.verify import verify
from bpc.terminal.help import ReadableGroup
from bpc.terminal.options import DEBUG

_HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="bpc",
    cls=ReadableGroup,
    help="A block-pruning compiler: fine-prune a transformer, compile the masks away exactly, export what is left.",
    epilog="Exit codes: 0 done, 1 unfit input, 2 wrong usage, 3 the result differs from the model, 70 a bug of bpc, "
    "130 interrupted (Ctrl-C), 143 terminated (SIGTERM).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
)
for name, command in {
    "prune": prune,
    "sweep": sweep,
    "eval": evaluate,
    "oneshot": oneshot,
    "inspect": inspect,
    "shrink": shrink,
    "trim-vocab": trim_vocab,
    "verify": verify,
    "export": export,
    "bench": bench,
    "compare": compare,
}.items():
    app.command(name, cls=ModelFirst, context_settings=_HELP)(command)


def _version(asked: bool) -> None:
    if asked:
        from bpc import __version__

        typer.echo(f"bpc {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks beside messages.")] = False,
) -> None:
    DEBUG.set(debug)


__all__ = ["app"]
