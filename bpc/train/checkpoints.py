"""Which checkpoint a run goes on from: the newest that was written to its end.

transformers writes a checkpoint file by file, ``trainer_state.json`` last. A process that is killed meanwhile leaves
the newest directory incomplete.
"""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bpc.train import pieces

logger = logging.getLogger(__name__)

_STATE = "trainer_state.json"
_PICKLED = ("optimizer.pt", pieces.SCHEDULER)  # what transformers would silently start anew


def checkpoints_in(directory: Path) -> list[Path]:
    """The checkpoints of a run, newest first; none of a directory that does not exist."""
    steps = {}
    for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdigit() and path.is_dir():
            steps[int(step)] = path
    return [steps[step] for step in sorted(steps, reverse=True)]


def newest_complete(directory: str | Path) -> str | None:
    """The newest complete checkpoint of a run; a warning names the newer ones that are not, and what they lack."""
    for path in checkpoints_in(Path(directory)):
        lack = lacks(path)
        if lack is None:
            return str(path)
        logger.warning("%s is skipped: %s. The run goes on from an older checkpoint", path, lack)
    return None


def lacks(checkpoint: Path) -> str | None:
    """What keeps a run from going on from a checkpoint, in words; None for a complete one."""
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {_STATE}, which is written last: the process ended meanwhile"
    except ValueError as error:
        return f"its {_STATE} is damaged ({error})"
    in_pieces = pieces.are_in(checkpoint)
    for name in (pieces.SCHEDULER,) if in_pieces else _PICKLED:
        if not zipfile.is_zipfile(checkpoint / name):
            return f"it has no whole {name}"
    for directory in (pieces.WEIGHTS, pieces.OPTIMIZER) if in_pieces else ("",):
        weights = sorted((checkpoint / directory).glob("*.safetensors"))
        if not weights:
            return f"it has no {directory or 'weights'} (*.safetensors)"
        for file in weights:
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                return f"its {file.relative_to(checkpoint)} is damaged ({error})"
    if in_pieces and not (checkpoint / pieces.OPTIMIZER / pieces.NUMBERS).is_file():
        return f"it has no {pieces.OPTIMIZER}/{pieces.NUMBERS}"
    return None
