"""One family: a process that prunes, one that uses, one that has no bpc."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "onnxruntime", "peft", "sentence-transformers")

_PREPARE = "import sys, pathlib; from tests.doors.case import prepare; prepare(sys.argv[1], pathlib.Path(sys.argv[2]))"
# Neither package is found, and neither is asked for.
_WITHOUT = """
import sys, torch, transformers
class Blocked:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("bpc", "passes"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
case = torch.load("case.pt", weights_only=False)
model = getattr(transformers, case["auto"]).from_pretrained("standalone", trust_remote_code=True)
with torch.no_grad():
    found = model(**case["inputs"])[0]
difference = (found - case["outputs"]).abs().max() / case["outputs"].abs().max()
print() if difference <= 1e-4 else sys.exit(f"outputs differ by {difference:.2g} of their largest")
"""


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def try_family(family: str, folder: Path) -> dict[str, str]:
    """{door: "" where it is open, else why not}."""
    python = [sys.executable, "-W", "ignore"]
    _run([*python, "-c", _PREPARE, family, str(folder)], ROOT)
    found: dict[str, str] = json.loads(_run([*python, "-m", "tests.doors.doors", str(folder)], ROOT).splitlines()[-1])
    import torch

    case = torch.load(folder / "case.pt", weights_only=False)
    found |= case["made"]
    if not case["made"]["standalone"]:
        done = _process([*python, "-c", _WITHOUT], folder)
        found["standalone"] = "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:240]
    return found


def _run(command: list[str], folder: Path) -> str:
    done = _process(command, folder)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed: {done.stderr[-2000:]}")
    return done.stdout


def _process(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    modules = {"HF_MODULES_CACHE": str(folder / "modules"), "OMP_NUM_THREADS": "1"}
    if folder == ROOT:
        modules["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **modules})
