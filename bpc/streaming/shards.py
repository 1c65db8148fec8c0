"""Safetensors files written tensor by tensor, so that a killed run goes on from its last whole file.

The format: eight bytes with the length of a JSON header, the header ({name: dtype, shape, where it lies}), then the
numbers. Sizes are known before a number is: the header comes first, and no more than one tensor is in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_STATE = "state.json"


def layout(tensors: Mapping[str, torch.Tensor], max_shard_size: int | str) -> tuple[dict[str, list[str]], str | None]:
    """({file: its tensors}, the text of the index file, None for a single one), as transformers would write them."""
    split = split_torch_state_dict_into_shards(
        dict(tensors), filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )
    if not split.is_sharded:
        return split.filename_to_tensors, None
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    return split.filename_to_tensors, json.dumps(index, indent=2, sort_keys=True) + "\n"


def write_shard(
    path: Path, shapes: Mapping[str, torch.Tensor], make: Callable[[Sequence[str]], Iterator[torch.Tensor]]
) -> str:
    """Write one file; returns its sha256. ``shapes``: meta tensors; ``make`` gives the numbers of names, in turn."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    names = sorted(shapes, key=lambda name: (-shapes[name].element_size(), name))  # numbers lie aligned
    for name in names:
        begin, end = end, end + shapes[name].nbytes
        header[name] = {
            "dtype": _DTYPES[shapes[name].dtype], "shape": list(shapes[name].shape), "data_offsets": [begin, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file, ThreadPoolExecutor(1) as hashing:  # which holds no lock of the interpreter

        def put(piece: Any) -> Future[None]:
            hashed = hashing.submit(digest.update, piece)
            file.write(piece)
            return hashed

        hashed = put(len(text).to_bytes(8, "little") + text)
        for name, numbers in zip(names, make(names), strict=True):
            if numbers.shape != shapes[name].shape or numbers.dtype != shapes[name].dtype:
                raise AssertionError(f"{name} became {tuple(numbers.shape)} {numbers.dtype}")
            hashed.result()  # one tensor waits at most
            if numbers.numel():
                hashed = put(numbers.contiguous().reshape(-1).view(torch.uint8).numpy())
        hashed.result()
    return digest.hexdigest()


class Staging:
    """Finished files of one run, beside their place: a later run of the same (``of``) takes them over.

    What another run left is removed. Whoever uses it holds the lock on the directory.
    """

    def __init__(self, directory: Path, of: str) -> None:
        self.directory = directory
        self._done: dict[str, Any] = {}
        try:
            found = json.loads((directory / _STATE).read_text(encoding="utf-8"))
            if found["of"] == of:
                self._done = found["files"]
        except (OSError, ValueError, LookupError, TypeError):
            pass
        if not self._done:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        self._of = of

    def done(self, name: str) -> dict[str, Any] | None:
        """What was kept of a file that is whole; None for others."""
        entry = self._done.get(name)
        file = self.directory / name
        return entry if entry is not None and file.is_file() and file.stat().st_size == entry["bytes"] else None

    def add(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        """A file is whole: the run goes on behind it from now on. Gives what is kept of it."""
        self._done[name] = entry = {**entry, "bytes": (self.directory / name).stat().st_size}
        fresh = self.directory / f"{_STATE}.new"
        fresh.write_text(json.dumps({"of": self._of, "files": self._done}), encoding="utf-8")
        os.replace(fresh, self.directory / _STATE)
        return entry

    def remove(self) -> None:
        """Nothing of it is needed any more."""
        shutil.rmtree(self.directory, ignore_errors=True)
