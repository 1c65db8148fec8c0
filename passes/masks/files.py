"""Tensors in files, read one at a time: safetensors (also sharded), torch.load(weights_only=True). No unpickling."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open

from passes.masks.check import MaskError

INDEX = "model.safetensors.index.json"


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
            try:
                with safe_open(self.path, framework="pt") as file:
                    self._home = dict.fromkeys(file.keys(), self.path)
            except SafetensorError as error:
                raise MaskError(f"{self.path} is no safetensors file: {error}") from error
        if not len(self):
            raise MaskError(f"{self.path} holds no tensors")

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._loaded is not None:
            return self._loaded[name]
        with safe_open(self._home[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._home if self._loaded is None else self._loaded)

    def __len__(self) -> int:
        return len(self._home if self._loaded is None else self._loaded)


def _shards(index: Path) -> dict[str, Path]:
    """{tensor name: file} of a sharded checkpoint's index."""
    try:
        table = json.loads(index.read_text())["weight_map"]
        return {name: index.parent / shard for name, shard in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MaskError(f"{index} is no index of a sharded checkpoint (JSON with a weight_map)") from error


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
    except (UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise MaskError(f"{path} holds more than tensors and is not unpickled: {first}") from error
    if not isinstance(loaded, Mapping):
        raise MaskError(f"{path} holds a {type(loaded).__name__}; a state dict is needed")
    tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    inner = [repr(name) for name, value in loaded.items() if isinstance(value, Mapping)]
    if not tensors and inner:
        raise MaskError(f"{path} holds its tensors one level down, under {', '.join(inner)}; save that part by itself")
    return tensors
