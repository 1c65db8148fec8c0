"""Two processes of one run, started as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def on_two_ranks(module: str, out: Path) -> Path:
    """Run ``python -m module OUT`` twice, as ranks 0 and 1; what went wrong is the assertion's message."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(out)],
            cwd=ROOT,
            env={**os.environ, **common, "PYTHONPATH": path, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    try:
        for process in ranks:
            output, _ = process.communicate(timeout=180)
            assert process.returncode == 0, output
    finally:
        for process in ranks:
            process.kill()
    return out
