"""``bpc compare``: two result files side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bpc.terminal.errors import reports_errors


@reports_errors
def compare(
    first: Annotated[Path, typer.Argument(help="A result.json of bpc, or a directory with one.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """What two runs came to, figure by figure; refused where they were not measured alike.

    Results are what `prune`, `oneshot` and `shrink` leave beside the small model, and `bench` and `eval` with --json.
    """
    from bpc.results import difference_table, read_result
    from bpc.terminal.console import print_whole, quiet_console

    files = [path / "result.json" if path.is_dir() else path for path in (first, second)]
    results = [read_result(file) for file in files]
    print_whole(quiet_console(), difference_table(results[0], results[1], (str(first), str(second))))
