"""The weights of a model directory under the names of the model, read one at a time and not kept."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, apply_renamings

from bpc.errors import MendableError
from bpc.hub.sizes import tensors_of
from passes.ir.compact import compact_layers
from passes.masks import TensorFile


class StreamError(MendableError):
    """A checkpoint cannot be read tensor by tensor; the message says why, and what to do instead."""


class Checkpoint(Mapping[str, torch.Tensor]):
    """Parameters and buffers of ``shell``, a model on the meta device, with the numbers of a directory.

    Each is read, and cast to the shell's dtype, when it is asked for. Buffers that checkpoints leave out are what the
    model's class makes of them. Raises `StreamError` where the files name the weights otherwise than the model does.
    """

    def __init__(self, directory: Path, shell: nn.Module) -> None:
        if layers := compact_layers(shell):
            raise StreamError(
                f"{directory} holds a small model, of whose {next(iter(layers))} its forward sees more than is stored: "
                "bpc.widen makes it plain, in memory; or leave out --stream"
            )
        self._file = TensorFile(directory)
        self._shell = tensors_of(shell)
        self._stored: dict[str, str] = {}
        made = _buffers(shell)
        saved = shell.state_dict().keys()
        self._made = {name: made[name] for name in self._shell if name not in saved and name in made}
        names, renamed = _by_tensor(self._shell), _renamed(shell, self._file)
        for group in names.values():
            spellings = (renamed.get(spelled, spelled) for name in group for spelled in _spellings(shell, name))
            found = next((spelled for spelled in spellings if spelled in self._file), None)
            if found is not None:
                self._stored |= dict.fromkeys(group, found)
        lacking = sorted(self._shell.keys() - self._stored.keys() - self._made.keys())
        if lacking:
            raise StreamError(
                f"{self._file.path} has no tensor {lacking[0]!r} ({len(lacking)} such weights): the checkpoint lacks "
                "them, or transformers makes them from several others as it loads. Leave out --stream"
            )
        shapes = self._file.shapes()
        for name, stored in self._stored.items():
            if shapes[stored] != tuple(self._shell[name].shape):
                raise StreamError(
                    f"{self._file.path}: {stored} is {shapes[stored]}, by the config {tuple(self._shell[name].shape)}"
                )

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self._made:
            return self._made[name]
        return self._file[self._stored[name]].to(self._shell[name].dtype)

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._shell)

    def __len__(self) -> int:
        return len(self._shell)


class Changed(Mapping[str, torch.Tensor]):
    """A checkpoint, some of whose tensors are other numbers.

    ``changed``: by the names of a traced model; ``aliases`` of it are the names of tied ones.
    """

    def __init__(self, checkpoint: Checkpoint, changed: Mapping[str, torch.Tensor], aliases: Mapping[str, str]) -> None:
        self._checkpoint, self._changed, self._aliases = checkpoint, changed, aliases

    def __getitem__(self, name: str) -> torch.Tensor:
        own = self._aliases.get(name, name)
        return self._changed[own] if own in self._changed else self._checkpoint[name]

    def __contains__(self, name: object) -> bool:
        return name in self._checkpoint

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint)

    def __len__(self) -> int:
        return len(self._checkpoint)


def _by_tensor(tensors: Mapping[str, torch.Tensor]) -> dict[int, list[str]]:
    """Names by tensor: tied ones are stored under one of theirs."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return names


def _spellings(shell: nn.Module, name: str) -> Iterator[str]:
    """A name as the model has it, and as a checkpoint of the model without its head, or of one with it, has it."""
    yield name
    if prefix := getattr(shell, "base_model_prefix", ""):
        yield name.removeprefix(f"{prefix}.")
        yield f"{prefix}.{name}"


def _renamed(shell: Any, stored: Iterable[str]) -> dict[str, str]:
    """{name in the model: name in its checkpoint} where transformers only renames: some models changed names, and keep
    the old ones on disk."""
    renamings = [change for change in get_model_conversion_mapping(shell) if isinstance(change, WeightRenaming)]
    return {apply_renamings(name, renamings): name for name in stored} if renamings else {}


def _buffers(shell: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers with the numbers that a new model has in them; parameters are not made."""
    with torch.random.fork_rng(devices=()), init_empty_weights(include_buffers=False):
        made: nn.Module = type(shell)(copy.deepcopy(shell.config))
    return {name: buffer for name, buffer in made.named_buffers(remove_duplicate=False) if not buffer.is_meta}
