"""The numbers of both models by name, each made when it is asked for, and written to files with their hashes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bpc.hub.load import WEIGHT_FILES
from bpc.hub.sizes import tensors_of
from bpc.streaming.shards import Staging, write_shard
from passes.certificate import digest, hash_of, versions
from passes.ir.tensors import masked
from passes.masks import BlockScores, MaskSource, TensorFile
from passes.plan.plan import Plan
from passes.plan.tensors import SmallTensors

T = TypeVar("T")


class _Made(Mapping[str, Tensor]):
    def __init__(self, make: Callable[[str], Tensor]) -> None:
        self._make = make

    def __getitem__(self, name: str) -> Tensor:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("tensors are asked for by name")

    def __len__(self) -> int:
        raise TypeError("tensors are asked for by name")


class Numbers:
    """``masked``: the large model's tensors, masks applied; ``small``: the small one's. By any of a tensor's names."""

    def __init__(
        self, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], plan: Plan, changed: SmallTensors
    ) -> None:
        self._weights, self._masks, self._aliases, self._changed = weights, masks, plan.aliases, changed
        self.masked, self.small = _Made(self._masked), _Made(self._small)

    def _masked(self, name: str) -> Tensor:
        own = self._aliases.get(name, name)
        return masked(self._weights[name], self._masks[own]) if own in self._masks else self._weights[name]

    def _small(self, name: str) -> Tensor:
        own = self._aliases.get(name, name)
        return self._changed[own] if own in self._changed else self._weights[name]

    def written(self, folder: Path, home: Mapping[str, tuple[str, str]]) -> Mapping[str, Tensor]:
        """The small model as it is in files; ``home``: {name: (file, the name it is stored under)}. What is in none of
        them (buffers that checkpoints leave out) is made as ever."""
        files = {file: TensorFile(folder / file) for file in {file for file, _ in home.values()}}

        def read(name: str) -> Tensor:
            file, own = home.get(name, ("", ""))
            return files[file][own] if file else self._small(name)

        return _Made(read)

    def write(self, staging: Staging, file: str, shapes: Mapping[str, Tensor]) -> dict[str, Any]:
        """Write one file of the small model; what is kept of it are its hash and those of the tensors in it.

        Other threads make and hash the tensors that come next while this one writes; two are ahead at most.
        """
        hashes: dict[str, dict[str, str]] = {"small": {}, "masked": {}}

        def made(names: Sequence[str]) -> Iterator[Tensor]:
            # Reading, cutting and hashing hold no lock of the interpreter. Each has one thread of torch's: more of them
            # wait for each other.
            with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for tensor, small, large in in_turn(pool, self._hashed, names, ahead=2):
                    hashes["small"] |= small
                    hashes["masked"] |= large
                    yield tensor

        sha256 = write_shard(staging.directory / file, shapes, made)
        return staging.add(file, {"sha256": sha256, **hashes})

    def _hashed(self, name: str) -> tuple[Tensor, dict[str, str], dict[str, str]]:
        """(a tensor of the small model, its hash by its name, the masked one's by the name in the traced model)."""
        tensor, own = self._small(name), self._aliases.get(name, name)
        small = digest(tensor)
        if name not in self._weights:  # a bias that folding added
            return tensor, {name: small}, {}
        large = small if own not in self._changed else digest(self._weights[name], self._masks.get(own))
        return tensor, {name: small}, {own: large}


def in_turn(pool: Executor, make: Callable[[str], T], names: Iterable[str], ahead: int) -> Iterator[T]:
    """What is made of each name, in order; ``ahead`` of them at most are made before they are asked for."""
    waiting: deque[Future[T]] = deque()
    try:
        for name in names:
            if len(waiting) == ahead:
                yield waiting.popleft().result()
            waiting.append(pool.submit(make, name))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def stored_names(module: nn.Module) -> dict[str, list[str]]:
    """{name that a tensor is stored under: all its names}, in the order of the state dict.

    Tied ones are stored under the name that transformers takes the others' numbers from.
    """
    tied = getattr(module, "all_tied_weights_keys", None) or {}
    tensors = tensors_of(module)
    groups: dict[int, list[str]] = {}
    for name in module.state_dict():
        groups.setdefault(id(tensors[name]), []).append(name)
    return {next((name for name in group if name not in tied), group[0]): group for group in groups.values()}


def fingerprint(
    plan: Plan, directory: Path, masks: MaskSource, files: Mapping[str, list[str]], changed: Mapping[str, Tensor]
) -> str:
    """Of all that decides what is in the files: a run goes on with those of an earlier one that has the same."""
    where = masks.source if isinstance(masks, BlockScores) else masks
    sources = sorted({f for pattern in WEIGHT_FILES for f in directory.glob(pattern)})
    if isinstance(where, str | Path):
        sources += [
            f for f in (sorted(Path(where).glob("*")) if Path(where).is_dir() else [Path(where)]) if f.is_file()
        ]
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sources]
    given = {} if where is None or isinstance(where, str | Path) else {n: digest(t) for n, t in where.items()}
    about = {"plan": plan.plain(), "sources": stats, "masks": given, "files": files, "versions": versions()}
    return hash_of({**about, "changed": {name: digest(tensor) for name, tensor in changed.items()}})
