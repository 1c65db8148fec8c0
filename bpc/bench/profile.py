"""Where the time goes: ONNX Runtime's profile per operator, dense and small side by side."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from bpc.emit.ir_tools import read_model
from bpc.runtimes import onnxruntime
from bpc.timing.alternate import available_threads
from bpc.timing.feed import random_feed

_RUNS = 20


def profile(
    path: str | os.PathLike[str], batch: int, length: int, threads: int | None = None
) -> dict[str, tuple[int, float]]:
    """{operator: (kernel launches, milliseconds)} of one run of an exported file; each launch at its fastest of 20.

    The operators are those ONNX Runtime executes after its own fusions. Profiling itself costs a little per launch. The
    runtime's clock is a wall clock: a launch that other work interrupts takes as long again, which no mean evens out
    (products of several ms are hit at nearly every run, normalisations hardly ever).
    """
    feed = random_feed(read_model(path), batch, length)
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or available_threads()
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="bpc-profile-") as folder:
        options.profile_file_prefix = str(Path(folder) / "run")
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(_RUNS + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [e for e in events if e.get("cat") == "Node" and str(e.get("name", "")).endswith("_kernel_time")]
    return _fastest([(e["args"]["op_name"], e["dur"]) for e in kernels], _RUNS + 1)


def _fastest(events: Sequence[tuple[str, float]], runs: int) -> dict[str, tuple[int, float]]:
    """{operator: (launches, ms)} of events (operator, microseconds) of ``runs`` runs, the first of which warms up."""
    per_run = len(events) // runs
    launches: Counter[str] = Counter()
    milliseconds: dict[str, float] = defaultdict(float)
    for launch in range(per_run):  # the same launch lies per_run events further in the next run
        operator = events[launch][0]
        launches[operator] += 1
        milliseconds[operator] += min(time for _, time in events[per_run + launch :: per_run]) / 1e3
    return {operator: (launches[operator], milliseconds[operator]) for operator in launches}


def profile_table(
    dense: str | os.PathLike[str],
    small: str | os.PathLike[str],
    batch: int,
    length: int,
    threads: int | None = None,
    note: str = "",
) -> Table:
    """Both profiles side by side, the operator that costs most first; ``note`` joins the title."""
    sides = [profile(path, batch, length, threads) for path in (dense, small)]
    totals = [sum(ms for _, ms in side.values()) for side in sides]
    table = Table(title=", ".join(filter(None, ["time per operator", f"{batch} × {length}", note])))
    table.add_column("operator")
    for name in ("dense calls", "dense ms", "share", "small calls", "small ms", "share", "dense / small"):
        table.add_column(name, justify="right")
    for op in sorted(set(sides[0]) | set(sides[1]), key=lambda op: -max(s.get(op, (0, 0.0))[1] for s in sides)):
        cells = []
        for side, total in zip(sides, totals, strict=True):
            calls, ms = side.get(op, (0, 0.0))
            cells += [f"{calls}", f"{ms:.2f}", f"{ms / total:.1%}"]
        before, after = (side.get(op, (0, 0.0))[1] for side in sides)
        table.add_row(op, *cells, f"{before / after:.2f}×" if before and after else "–")
    table.add_section()
    table.add_row("all", "", f"{totals[0]:.2f}", "", "", f"{totals[1]:.2f}", "", f"{totals[0] / totals[1]:.2f}×")
    return table
