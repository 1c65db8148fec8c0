"""Damaged files of every kind that bpc reads: none may raise another's error, and none may be silently wrong.

python -m tests.filefuzz --cases 5000 [--seed N] [--door NAME]

Prints every failure with its seed, then the tally. Exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.filefuzz.files import doors
from tests.filefuzz.run import cases, tally

MEMORY = 12 * 2**30  # a file that asks for more fails here, and not the machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.filefuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=5000, help="files to damage")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the first one; the others follow. Default: a new one"
    )
    parser.add_argument("--door", metavar="NAME", default="", help="only doors whose name holds NAME")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outcomes, start = [], time.time()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [door for door in doors(Path(folder)) if options.door in door.name]
        print(f"seeds from {seed}, {len(chosen)} doors", flush=True)
        for outcome in cases(chosen, range(seed, seed + options.cases)):
            outcomes.append(outcome)
            if outcome.kind in ("foreign", "wrong"):
                print(f"seed {outcome.seed}, {outcome.door}: {outcome.kind}: {outcome.text}", flush=True)
    print(tally(outcomes))
    failed = sum(outcome.kind in ("foreign", "wrong") for outcome in outcomes)
    print(f"{len(outcomes)} files from seed {seed}, {time.time() - start:.0f} s: {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
