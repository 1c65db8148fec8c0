"""What a pruned model shall cost: one number that a user asks for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from bpc.errors import MendableError


class TargetError(MendableError):
    """A target that says nothing, or that a model cannot meet; the message says what can."""


Runtime = Literal["onnx", "onnx-cpu", "eager", "compiled"]


@dataclass(frozen=True)
class Target:
    """Exactly one of the first four; the others say where a speed-up is measured.

    Attributes:
        speedup: times as fast as the original, measured on this machine (1.5: two thirds of the time).
        params: share of all parameters that is kept, between 0 and 1.
        density: share of what can be pruned (attention and feed-forward weights) that is kept.
        bytes: bytes of the weights, in the dtype the model is held in.
        runtime: "onnx" or "onnx-cpu" (ONNX Runtime's CPU provider), "eager" or "compiled" (torch).
        dtype: of the timed model, "float32" or for ONNX "int8".
        shape: (batch, length) of the timed input; models without a sequence axis read the batch alone.
        threads: CPU threads; None: all.

    Raises `TargetError` for anything else.
    """

    speedup: float | None = None
    params: float | None = None
    density: float | None = None
    bytes: int | None = None
    runtime: Runtime = "onnx"
    dtype: str = "float32"
    shape: tuple[int, int] = (8, 64)
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.runtime == "onnx-cpu":  # times are of the CPU in every runtime
            object.__setattr__(self, "runtime", "onnx")
        if self.runtime not in get_args(Runtime):
            raise TargetError(f"runtime={self.runtime!r} is not one of {', '.join(get_args(Runtime))}")
        given = [name for name in ("speedup", "params", "density", "bytes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise TargetError(
                f"a target is one of speedup=, params=, density= and bytes=; got {', '.join(given) or 'none'}"
            )
        if self.speedup is not None and not 1 <= self.speedup < float("inf"):
            raise TargetError(f"speedup={self.speedup}: write how many times as fast, 1 or more")
        for name in ("params", "density"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise TargetError(f"{name}={share}: write the share to keep, above 0 and up to 1")
        if self.bytes is not None and self.bytes <= 0:
            raise TargetError(f"bytes={self.bytes}: write a positive number of bytes")

    @staticmethod
    def of(target: Target | float) -> Target:
        """A plain number is a speed-up."""
        return target if isinstance(target, Target) else Target(speedup=float(target))

    def __str__(self) -> str:
        name = next(f.name for f in fields(self) if getattr(self, f.name) is not None)
        value = getattr(self, name)
        if name == "speedup":
            batch, length = self.shape
            return f"{value:g}× faster ({self.runtime}, {self.dtype}, {batch}x{length})"
        return f"{value:,} bytes" if name == "bytes" else f"{value:.0%} of {_NAMES[name]}"


_NAMES = {"params": "the parameters", "density": "the prunable weights"}
