"""What a comparison found: times, arithmetic, efficiency; as a table and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.table import Table

from bpc.timing.alternate import Timing


@dataclass(frozen=True)
class Machine:
    """Where a figure was measured."""

    cpu: str
    threads: int
    versions: dict[str, str]
    gpu: str | None = None

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.gpu or f'{self.cpu}, {self.threads} threads'}; {versions}"


def this_machine(threads: int, device: str = "cpu") -> Machine:
    """Describe this machine; its GPU where ``device`` is "cuda"."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "transformers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    gpu = None
    if device == "cuda":
        import torch

        gpu = torch.cuda.get_device_name()
    return Machine(_cpu_name(), threads, versions, gpu)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@dataclass(frozen=True)
class Comparison:
    """Dense against small at one batch and length, under one runtime and dtype.

    ``dense_flops``/``small_flops``: FLOPs of one forward pass (linear layers and attention). ``peak_gflops``: what a
    plain float32 matrix product reaches on this machine with these threads, or None where not measured.
    """

    batch: int
    length: int
    runtime: str
    dtype: str
    dense: Timing
    small: Timing
    dense_flops: int
    small_flops: int
    peak_gflops: float | None
    clock: str
    machine: Machine

    @property
    def speedup(self) -> float:
        """Median dense time over median small time."""
        return self.dense.median / self.small.median

    @property
    def best_speedup(self) -> float:
        """The same of the fastest runs: robust where other work disturbs the machine."""
        return self.dense.best / self.small.best

    @property
    def arithmetic_ratio(self) -> float:
        """FLOPs of dense over FLOPs of small: the limit of the speed-up."""
        return self.dense_flops / self.small_flops

    @property
    def efficiency(self) -> float:
        """Speed-up over arithmetic ratio; 1 means that time followed the arithmetic."""
        return self.speedup / self.arithmetic_ratio

    @property
    def dense_gflops(self) -> float:
        """GFLOP/s the dense side reaches."""
        return self.dense_flops / self.dense.median / 1e9

    @property
    def small_gflops(self) -> float:
        """GFLOP/s the small side reaches."""
        return self.small_flops / self.small.median / 1e9

    def to_dict(self) -> dict[str, Any]:
        """All figures, the derived ones included, as plain data."""
        derived = ("speedup", "best_speedup", "arithmetic_ratio", "efficiency", "dense_gflops", "small_gflops")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Comparison:
        """What `to_dict` gave, read back. Raises `pydantic.ValidationError` for anything else."""
        own = {field.name: data[field.name] for field in fields(Comparison) if field.name in data}
        return TypeAdapter(Comparison).validate_python(own)

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __rich__(self) -> Table:
        """One comparison as a table."""
        return comparison_table([self])


def comparison_table(comparisons: list[Comparison]) -> Table:
    """A row per comparison; the caption says where it was measured."""
    table = Table(title="dense against small")
    named = any(c.small.name != "small" for c in comparisons)
    if named:
        table.add_column("model")
    for column in (
        "runtime",
        "dtype",
        "batch × length",
        "dense ms",
        "small ms",
        "speed-up",
        "arithmetic",
        "efficiency",
    ):
        table.add_column(column, justify="left" if column in ("runtime", "dtype") else "right")
    table.add_column("GFLOP/s dense → small", justify="right")
    for c in comparisons:
        noise = max(c.dense.spread, c.small.spread)
        table.add_row(
            *([c.small.name] if named else []),
            c.runtime,
            c.dtype,
            f"{c.batch} × {c.length}",
            f"{c.dense.median * 1e3:.1f}",
            f"{c.small.median * 1e3:.1f}",
            f"{c.speedup:.2f}×" + (f" ±{noise:.0%}" if noise > 0.1 else ""),
            f"{c.arithmetic_ratio:.2f}×",
            f"{c.efficiency:.2f}",
            f"{c.dense_gflops:.0f} → {c.small_gflops:.0f}",
        )
    if comparisons:
        last = comparisons[-1]
        peak = f"; matrix product {last.peak_gflops:.0f} GFLOP/s" if last.peak_gflops is not None else ""
        how = f"{last.clock} clock, median of {len(last.dense.seconds)} alternating runs, each side in its own process"
        table.caption = f"{last.machine}{peak}; {how}"
    return table


def fastest_lines(comparisons: list[Comparison]) -> list[str]:
    """For each shape that was timed several times: which runtime and dtype run the small model fastest, by how much."""
    shapes: dict[tuple[int, int], list[Comparison]] = {}
    for found in comparisons:
        shapes.setdefault((found.batch, found.length), []).append(found)
    lines = []
    for (batch, length), sides in shapes.items():
        first, *others = sorted(sides, key=lambda side: side.small.median)
        times = [f"{s.small.median / first.small.median:.2f}× as fast as {s.runtime} {s.dtype}" for s in others]
        if times:
            lines.append(f"small, {batch} × {length}: {first.runtime} {first.dtype} is {', '.join(times)}")
    return lines
