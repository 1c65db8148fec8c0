"""Mutation testing of the rules and the rewrites: every small change must make a test fail.

python -m tests.mutation [--folders passes/ops passes/rewrite] [--select EXPR] [--sample N] [--seconds S]
                         [--results FILE]

Records once which test runs which line (FILE.coverage), then runs, for each mutant, the tests that run its line, the
quickest first, until one fails. Results are appended to FILE; run again to go on. Survivors are printed, but for those
that tests/mutation/equivalent.toml argues to be no change.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from tests.mutation.coverage import covering
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.run import preload, record, verdict

ROOT = Path(__file__).parents[2]
FOLDERS = ("passes/ops", "passes/rewrite")
TESTS = (
    "tests/passes/ops",
    "tests/passes/analysis",
    "tests/passes/rewrite",
    "tests/passes/traps",
    "tests/passes/properties",
)
ARGUED = Path(__file__).parent / "equivalent.toml"


def all_mutants(folders: list[str]) -> list[Mutant]:
    given = [ROOT / folder for folder in folders]
    files = sorted(f for place in given for f in ([place] if place.is_file() else place.rglob("*.py")))
    return [m for file in files for m in mutants(str(file.relative_to(ROOT)), file.read_text())]


def argued() -> dict[str, str]:
    """{name of a mutant: why it changes nothing}."""
    return {entry["mutant"]: entry["why"] for entry in tomllib.loads(ARGUED.read_text()).get("equivalent", [])}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.split("\n\n")[0])
    parser.add_argument("--folders", nargs="+", default=list(FOLDERS), help="folders or files to change")
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    parser.add_argument("--select", default="", help="of the tests, those which pytest's -k selects")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random (the same ones every time)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--limit", type=float, default=120, help="seconds of tests for one mutant")
    parser.add_argument("--results", type=Path, default=ROOT / "mutation.jsonl")
    options = parser.parse_args()
    every = all_mutants(options.folders)
    chosen = list(every)
    random.Random(0).shuffle(chosen)
    chosen = chosen[: options.sample]
    results = _known(options.results)
    until = time.time() + options.seconds
    coverage_file = options.results.with_suffix(".coverage.json")
    if not coverage_file.exists():
        select = ["-k", options.select] if options.select else []
        record(ROOT, tuple(options.folders), [*options.tests, *select], coverage_file)
    tests = json.loads(coverage_file.read_text())
    preload()
    with options.results.open("a") as file:
        for mutant in chosen:
            if mutant.name in results:
                continue
            if time.time() > until:
                break
            relevant = covering(tests, mutant.file, mutant.line, mutant.last)
            outcome = verdict(ROOT, mutant, relevant, tests, options.limit)
            results[mutant.name] = outcome
            file.write(json.dumps({"mutant": mutant.name, "line": mutant.line, **outcome}) + "\n")
            file.flush()
            if outcome["outcome"] in ("survived", "not run"):
                print(f"{outcome['outcome']}: {mutant.file}:{mutant.line} {mutant.name}", flush=True)
    return _summary(results, every, chosen)


def _known(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    return {entry["mutant"]: entry for entry in entries}


def _summary(results: dict[str, dict[str, Any]], every: list[Mutant], chosen: list[Mutant]) -> int:
    reasons = argued()
    names = {m.name for m in chosen}
    counts = Counter(entry["outcome"] for name, entry in results.items() if name in names)
    alive = [n for n in names if n in results and results[n]["outcome"] in ("survived", "not run")]
    open_ = [n for n in alive if n not in reasons]
    print(f"{len(every)} mutants, {len(names & results.keys())} tried: {dict(counts)}")
    print(f"survivors: {len(alive)}, {len(alive) - len(open_)} of them argued to change nothing")
    return 1 if open_ else 0


if __name__ == "__main__":
    sys.exit(main())
