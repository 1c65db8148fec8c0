"""What trace, analysis, shrink, verification, export and a training step cost, and a model of it.

    python -m benchmarks.scaling                   measure what results/scaling.json lacks
    python -m benchmarks.scaling --case KEY        one case, as JSON (--list: their names)
    python -m benchmarks.scaling --table           the tables of docs/scaling.md, from results/scaling.json
    python -m benchmarks.scaling --plot FILE       measured points and the model's lines

Each case runs in a process of its own, forked from one that has paid for imports and first calls. One thread, CPU
seconds (the machine may be shared), medians of repeats inside the process; an export is timed once.
Memory: how far the process's peak lies above what was resident before the model was built.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.scaling.cases import CASES, Case

COMMAND = "python -m benchmarks.scaling"
RESULTS = Path("results/scaling.json")


def in_process(case: Case) -> dict[str, Any]:
    """One case in a process forked from this one, or in a process for each of its ranks."""
    if case.kind != "ranks":
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as forked:
            return forked.submit(case.measure).result()
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={case.ranks}", "-m"]
    command = [sys.executable, "-m", *launcher, "benchmarks.scaling", "--case", case.key]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{case.key} has failed:\n{done.stderr[-4000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def measure(out: Path) -> None:
    """Every case that ``out`` lacks; the file is whole after each."""
    import torch

    from benchmarks.scaling.compiler import warm
    from bpc.results.comparison import this_machine
    from bpc.writing import write_text

    torch.set_num_threads(1)
    warm()
    held = json.loads(out.read_text())["cases"] if out.exists() else {}
    for key, case in CASES.items():
        if key in held:
            continue
        started = time.perf_counter()
        held[key] = {**asdict(case.shape), "held out": case.held_out, **in_process(case)}
        cases = {name: held[name] for name in CASES if name in held}
        about = {"command": COMMAND, "machine": asdict(this_machine(1)), "cases": cases}
        write_text(out, json.dumps(about, indent=1) + "\n")
        seconds = {name: round(stage["cpu s"], 2) for name, stage in held[key]["stages"].items()}
        print(f"{key}: {seconds}, {time.perf_counter() - started:.0f} s in all", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--case", choices=CASES, metavar="KEY")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(CASES))
    elif given.case:
        import torch

        torch.set_num_threads(1)
        found = json.dumps(CASES[given.case].measure())
        if os.environ.get("RANK", "0") == "0":
            print(found)
    elif given.table:
        from benchmarks.scaling.tables import tables

        for name, table in tables(json.loads(given.out.read_text())["cases"]).items():
            print(f"{name}\n\n{table}")
    elif given.plot:
        from benchmarks.scaling.plot import draw

        draw(json.loads(given.out.read_text())["cases"], given.plot)
    else:
        measure(given.out)


if __name__ == "__main__":
    main()
