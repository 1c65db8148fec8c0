"""Try the doors of families; results are merged into results/doors.json as they come."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.doors.case import FAMILY_NAMES
from tests.doors.page import page
from tests.doors.run import try_family, versions

RESULTS, PAGE = Path("results/doors.json"), Path("docs/doors.md")


def main() -> None:
    for family in sys.argv[1:] or FAMILY_NAMES:
        with TemporaryDirectory() as folder:
            found = try_family(family, Path(folder))
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"families": {}}
        families = known["families"] | {family: found}
        data = {"versions": versions(), "families": {n: families[n] for n in FAMILY_NAMES if n in families}}
        RESULTS.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(page(data))
        print(family, {door: why for door, why in found.items() if why}, flush=True)


if __name__ == "__main__":
    main()
