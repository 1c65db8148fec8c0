"""What a run has measured so far, on disk: an interrupted one goes on from its last whole layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from bpc.oneshot.batches import Batch
from bpc.oneshot.ladders import Ladder, Setting
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import Target
from bpc.writing import new_file

_NAME = "one-shot.json"


class Saved:
    """Measurements of one model on one set of batches; of others, a directory's are left aside and replaced.

    ``directory``: None keeps nothing.
    """

    def __init__(
        self, directory: str | Path | None, graph: fx.GraphModule, batches: Sequence[Batch], setting: Setting
    ) -> None:
        self._file = None if directory is None else Path(directory) / _NAME
        self._data: dict[str, Any] = {"ladders": {}, "seconds": {}}
        if self._file is None:
            return
        self._data["of"] = _fingerprint(graph, batches, setting)
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            if found["of"] == self._data["of"]:
                self._data = found
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing to go on from

    def ladders(self) -> dict[str, Ladder]:
        """Those measured already, by sublayer."""
        return {
            name: Ladder(tuple(entry["order"]), {int(k): float(v) for k, v in entry["losses"].items()})
            for name, entry in self._data["ladders"].items()
        }

    def add_ladder(self, sublayer: Sublayer, ladder: Ladder) -> None:
        """Keep one more."""
        self._data["ladders"][sublayer.name] = {"order": list(ladder.order), "losses": ladder.losses}
        self._write()

    def seconds(self, target: Target) -> list[float] | None:
        """Times of the probes, if they were taken with the same runtime, dtype, shape and threads."""
        found = self._data["seconds"].get(_timing(target))
        return None if found is None else [float(second) for second in found]

    def set_seconds(self, target: Target, seconds: Sequence[float]) -> None:
        """Keep times of the probes."""
        self._data["seconds"][_timing(target)] = list(seconds)
        self._write()

    def _write(self) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with new_file(self._file) as staged:
                Path(staged).write_text(json.dumps(self._data), encoding="utf-8")


def _timing(target: Target) -> str:
    return f"{target.runtime} {target.dtype} {target.shape[0]}x{target.shape[1]} {target.threads}"


def _fingerprint(graph: fx.GraphModule, batches: Sequence[Batch], setting: Setting) -> str:
    digest = hashlib.sha256(json.dumps(asdict(setting), sort_keys=True).encode())
    for name, parameter in graph.named_parameters():
        digest.update(name.encode())
        digest.update(_bytes(parameter.detach()))
    for batch in batches:
        for name, value in sorted(batch.items()):
            digest.update(name.encode())
            digest.update(_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    import torch

    flat = tensor.contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
