"""Random programs under random masks: five forms must agree.

python -m tests.fuzz --cases 10000 [--seed N] [--seconds S] [--jobs N] [--templates NAME] [--quick]

Prints every failure with its seed, the guilty pass and a script that fails, then the tally. Exits with 1 if anything
was wrong or a foreign exception came out.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.fuzz.run import Report, run_range, run_templates


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=1000, help="programs to draw")
    parser.add_argument("--seed", type=int, default=0, help="the first program's number; the others follow")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--templates", metavar="NAME", help="instead: each operator whose name holds NAME on its own")
    parser.add_argument("--quick", action="store_true", help="name failures only: no guilty pass, no small script")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    start, tally, failures = time.time(), Counter[str](), Counter[str]()
    for number, report in enumerate(_reports(options, start + options.seconds), 1):
        tally.update(report.tally)
        if number % 500 == 0:
            print(f"{number} programs, {time.time() - start:.0f} s, {sum(failures.values())} failures", flush=True)
        if report.failure:
            failures[report.key] += 1
            seen = failures[report.key] > 1 and not options.quick
            print(f"{report.key} again, seed {report.seed}" if seen else report.failure, flush=True)
    for key, count in failures.most_common():
        print(f"{count:5d}  {key}")
    for reason, count in sorted(tally.items()):
        if reason.startswith("refused: "):
            print(f"{count:5d}  {reason}")
    counts = {kind: count for kind, count in sorted(tally.items()) if not kind.startswith("refused: ")}
    print(f"seeds {options.seed}…, {time.time() - start:.0f} s: {counts}")
    return 1 if failures else 0


def _reports(options: argparse.Namespace, until: float) -> Iterator[Report]:
    if options.templates is not None:
        yield from run_templates(options.seed, until, named=options.templates, quick=options.quick)
        return
    if options.jobs == 1:
        yield from run_range(options.seed, options.cases, until, quick=options.quick)
        return
    chunks = [(options.seed + n, 50, until, options.quick) for n in range(0, options.cases, 50)]
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=4) as pool:
        for reports in pool.imap_unordered(_chunk, chunks):
            yield from reports


def _chunk(given: tuple[int, int, float, bool]) -> list[Report]:
    logging.disable(logging.CRITICAL)
    seed, count, until, quick = given
    return list(run_range(seed, count, until, quick=quick))


if __name__ == "__main__":
    sys.exit(main())
