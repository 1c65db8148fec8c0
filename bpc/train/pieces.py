"""Checkpoints that every rank writes its own part of, by torch.distributed.checkpoint, as safetensors.

    weights/*.safetensors      parameters and buffers, scores among them
    optimizer/*.safetensors    its tensors, by name of the parameter
    optimizer/numbers.json     its other values

torch's own form of such checkpoints holds pickles, which run what somebody wrote into them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from bpc import ranks
from bpc.writing import write_text

WEIGHTS, OPTIMIZER, NUMBERS, SCHEDULER = "weights", "optimizer", "numbers.json", "scheduler.pt"

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def are_in(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written in pieces."""
    return Path(checkpoint, WEIGHTS).is_dir()


def remove(checkpoint: Path) -> None:
    """Take the pieces out of a checkpoint."""
    for directory in (WEIGHTS, OPTIMIZER):
        shutil.rmtree(checkpoint / directory, ignore_errors=True)


@torch.no_grad()
def save(checkpoint: Path, model: nn.Module, optimizer: Any) -> None:
    """Write the parts that this rank holds; every rank calls this."""
    _write(get_model_state_dict(model), checkpoint / WEIGHTS)
    tensors, numbers = _parts(get_optimizer_state_dict(model, _plain(optimizer), options=_FLAT))
    _write(tensors, checkpoint / OPTIMIZER)
    if ranks.is_first():
        write_text(checkpoint / OPTIMIZER / NUMBERS, json.dumps(numbers))


@torch.no_grad()
def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Read into a model, whole or in pieces of any number of ranks; every rank calls this."""
    state = get_model_state_dict(model)
    _read(state, checkpoint / WEIGHTS)
    set_model_state_dict(model, state)


@torch.no_grad()
def load_optimizer(checkpoint: Path, model: nn.Module, optimizer: Any) -> None:
    """Read the state of an optimizer of ``model``."""
    optimizer = _plain(optimizer)
    tensors, _ = _parts(get_optimizer_state_dict(model, optimizer, options=_FLAT))
    _read(tensors, checkpoint / OPTIMIZER)
    numbers = json.loads((checkpoint / OPTIMIZER / NUMBERS).read_text(encoding="utf-8"))
    state: dict[str, Any] = {**numbers, **tensors}
    set_optimizer_state_dict(model, optimizer, state, options=_FLAT)


def _parts(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if name not in tensors}


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """Without accelerate's wrapper, which leaves out steps."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def _write(state: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(directory), save_distributed=True))


def _read(state: dict[str, Any], directory: Path) -> None:
    dcp.load(state, storage_reader=HuggingFaceStorageReader(str(directory)))
