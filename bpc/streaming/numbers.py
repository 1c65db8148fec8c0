"""The numbers of both models by name, each made when it is asked for, and written to files with their hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bpc.hub.load import WEIGHT_FILES
from bpc.hub.sizes import tensors_of
from bpc.streaming.shards import Staging, write_shard
from passes.certificate import digest, hash_of, versions
from passes.ir.tensors import masked
from passes.masks import BlockScores, MaskSource
from passes.plan.plan import Plan
from passes.plan.tensors import SmallTensors


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

    def write(self, staging: Staging, file: str, shapes: Mapping[str, Tensor]) -> dict[str, Any]:
        """Write one file of the small model; what is kept of it are its hash and those of the tensors in it.

        Other threads hash what this one writes; two tensors wait at most.
        """
        small: dict[str, Future[str]] = {}
        large: dict[str, Future[str]] = {}
        waiting: list[list[Future[str]]] = []
        with ThreadPoolExecutor(2) as pool:  # hashing holds no lock of the interpreter

            def get(name: str) -> Tensor:
                for hashed in waiting[-2] if len(waiting) > 1 else ():
                    hashed.result()
                tensor = self._small(name)
                small[name] = pool.submit(digest, tensor)
                waiting.append([small[name]])
                if name in self._weights:  # not a bias that folding added
                    own = self._aliases.get(name, name)
                    large[own] = small[name] if own not in self._changed else pool.submit(self._digest_masked, name)
                    waiting[-1].append(large[own])
                return tensor

            sha256 = write_shard(staging.directory / file, shapes, get)
            entry = {
                "sha256": sha256,
                "small": {name: hashed.result() for name, hashed in small.items()},
                "masked": {name: hashed.result() for name, hashed in large.items()},
            }
        return staging.add(file, entry)

    def _digest_masked(self, name: str) -> str:
        return digest(self._weights[name], self._masks.get(self._aliases.get(name, name)))


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
