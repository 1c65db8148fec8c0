"""``--trust-remote-code``: whether code that a model's directory brings along may run; never unasked."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Annotated, TypeAlias

import typer

TRUSTED = ContextVar("trust_remote_code", default=False)


def _set(value: bool) -> bool:
    TRUSTED.set(value)
    return value


# Every command that reads a model takes it; what reads models looks at `TRUSTED`.
TrustCode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", callback=_set, help="Run Python code that a model's directory brings along (auto_map)."
    ),
]
