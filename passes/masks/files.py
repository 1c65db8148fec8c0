"""Tensors in files, read one at a time: safetensors (also sharded), torch.load(weights_only=True). No unpickling."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, TypeAdapter
from safetensors import SafetensorError, safe_open

from passes.masks.check import MaskError
from passes.strict import as_schema, parse_json

INDEX = "model.safetensors.index.json"

_ODD = (TypeError, ValueError, LookupError, AttributeError)  # what readers stumble over in a damaged file
_LIMIT = "for lack of memory (free some, or raise the limit of the process: `ulimit -v`)"


class _Index(BaseModel):
    weight_map: dict[str, str]


_INDEX_SCHEMA = TypeAdapter(_Index)


class TensorFile(Mapping[str, torch.Tensor]):
    """The tensors of a file by name, read from disk when asked for and not kept.

    ``path``: a safetensors file, a sharded checkpoint's index file, a directory that holds ``model.safetensors`` or the
    index, or a file written by ``torch.save`` (state dicts only). Raises `MaskError` for anything else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _inside(Path(path))
        self._loaded: Mapping[str, torch.Tensor] | None = None
        self._home: dict[str, Path] = {}
        if self.path.suffix == ".json":
            self._home = _shards(self.path)
        elif _is_torch_file(self.path):
            self._loaded = _torch_tensors(self.path)
        else:
            with _opened(self.path) as file:
                self._home = dict.fromkeys(file.keys(), self.path)
        if not len(self):
            raise MaskError(f"{self.path} holds no tensors")

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._loaded is not None:
            return self._loaded[name]
        with _opened(self._home[name]) as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{name: shape}, from the headers alone where the files are safetensors."""
        if self._loaded is not None:
            return {name: tuple(tensor.shape) for name, tensor in self._loaded.items()}
        found: dict[str, tuple[int, ...]] = {}
        for path in set(self._home.values()):
            with _opened(path) as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return {name: found[name] for name in self._home if name in found}

    def __contains__(self, name: object) -> bool:
        return name in (self._home if self._loaded is None else self._loaded)

    def __iter__(self) -> Iterator[str]:
        return iter(self._home if self._loaded is None else self._loaded)

    def __len__(self) -> int:
        return len(self._home if self._loaded is None else self._loaded)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError, *_ODD, MemoryError) as error:
        raise MaskError(f"{path} {_told(path, error)}") from error


def _told(path: Path, error: Exception) -> str:
    """What is wrong: the file, or the machine that could not read it."""
    if _lacks_memory(error):
        return f"could not be read, {_LIMIT}: {error}"
    if isinstance(error, FileNotFoundError) and not path.exists():
        return "does not exist"
    if isinstance(error, OSError):  # safetensors says "not found" of a file that it may not open
        return f"could not be read: {error}; look at its permissions, at the disk, and at `ulimit -n`"
    return f"is no safetensors file, or a damaged one: {error}"


def _lacks_memory(error: Exception) -> bool:
    """torch says so in the text of a RuntimeError."""
    return isinstance(error, MemoryError) or os.strerror(errno.ENOMEM) in str(error)


def _shards(index: Path) -> dict[str, Path]:
    """{tensor name: file} of a sharded checkpoint's index."""
    try:
        table = as_schema(_INDEX_SCHEMA, parse_json(index.read_bytes())).weight_map
    except (ValueError, OSError) as error:
        raise MaskError(f"{index} is no index of a sharded checkpoint (JSON with a weight_map): {error}") from error
    if outside := next((shard for shard in table.values() if Path(shard).name != shard), None):
        raise MaskError(f"{index}: {outside!r} is no file beside it")
    return {name: index.parent / shard for name, shard in table.items()}


def _inside(path: Path) -> Path:
    if path.is_dir():
        found = [path / name for name in ("model.safetensors", INDEX, "pytorch_model.bin") if (path / name).exists()]
        if not found:
            raise MaskError(f"{path} holds neither model.safetensors nor {INDEX} nor pytorch_model.bin")
        return found[0]
    if not path.exists():
        raise MaskError(f"{path} does not exist")
    return path


def _is_torch_file(path: Path) -> bool:
    """torch.save writes a zip archive (or, before 2020, a pickle); safetensors start with a length and a brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[:2] == b"PK" or start[:1] == b"\x80"


def _torch_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader lets anything out, of a damaged archive or pickle
        if _lacks_memory(error):
            raise MaskError(f"{path} could not be read, {_LIMIT}: {error}") from error
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise MaskError(f"{path} holds more than tensors and is not unpickled: {first}") from error
    if not isinstance(loaded, Mapping):
        raise MaskError(f"{path} holds a {type(loaded).__name__}; a state dict is needed")
    tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    inner = [repr(name) for name, value in loaded.items() if isinstance(value, Mapping)]
    if not tensors and inner:
        raise MaskError(f"{path} holds its tensors one level down, under {', '.join(inner)}; save that part by itself")
    return tensors
