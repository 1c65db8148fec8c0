"""``--target-…``: what a small model shall cost, and where a speed-up is measured; for the commands that prune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from bpc.terminal.options import dtype_named

if TYPE_CHECKING:
    from bpc.oneshot import Target

_PANEL = "Target (one of them)"
_WHERE = "Where a speed-up is measured"

Speedup: TypeAlias = Annotated[
    float | None,
    typer.Option(min=1, help="How many times as fast, measured on this machine, e.g. 1.5.", rich_help_panel=_PANEL),
]
Params: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of all parameters to keep, e.g. 0.8.", rich_help_panel=_PANEL),
]
Density: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of the attention and feed-forward weights to keep.", rich_help_panel=_PANEL),
]
Bytes: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Bytes of the weights, in the model's dtype.", rich_help_panel=_PANEL)
]
Runtime: TypeAlias = Annotated[str, typer.Option(help="onnx, eager or compiled.", rich_help_panel=_WHERE)]
Dtype: TypeAlias = Annotated[str, typer.Option(help="float32, or int8 for onnx.", rich_help_panel=_WHERE)]
Shape: TypeAlias = Annotated[str, typer.Option(help="Batch x length of the timed input.", rich_help_panel=_WHERE)]
Threads: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of the timed model; default: all.", rich_help_panel=_WHERE)
]


def target_of(
    speedup: float | None,
    params: float | None,
    density: float | None,
    size: int | None,
    *,
    runtime: str,
    dtype: str,
    shape: str,
    threads: int | None,
) -> Target:
    """The target that the options say. Raises `CommandError` for a runtime, dtype or shape that does not exist.

    Raises `TargetError` for no target, and for several.
    """
    from bpc.bench.cases import check_threads, parse_shape, runs
    from bpc.oneshot import Target

    dtype = dtype_named(dtype)
    check_threads(threads)
    runs([runtime], [dtype], None)
    return Target(
        speedup=speedup,
        params=params,
        density=density,
        bytes=size,
        runtime=runtime,  # type: ignore[arg-type]
        dtype=dtype,
        shape=parse_shape(shape),
        threads=threads,
    )


def target_among(given: Mapping[str, Any]) -> Target | None:
    """The target among all parameters of a command; None where none was asked for. Raises as `target_of`."""
    asked = [given[f"target_{kind}"] for kind in ("speedup", "params", "density", "bytes")]
    if all(value is None for value in asked):
        return None
    return target_of(*asked, **{name: given[name] for name in ("runtime", "dtype", "shape", "threads")})
