"""What a run has measured so far, on disk: an interrupted one goes on from its last whole layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor, fx

from bpc.oneshot.batches import Batch
from bpc.oneshot.ladders import Ladder, Setting
from bpc.oneshot.sublayers import Sublayer
from bpc.oneshot.target import Target
from bpc.writing import new_file

_NAME = "one-shot.json"
_REPAIRED = "repaired-"


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

    def repaired(self, kept: Mapping[str, int]) -> dict[str, dict[str, Tensor]]:
        """Refitted weights, by sublayer, of an earlier run that chose the same units."""
        found = {}
        for file in self._repaired_files():
            try:
                with safetensors.safe_open(file, "pt") as opened:
                    about = opened.metadata() or {}
                    if about.get("of") == self._choice(kept):
                        found[about["sublayer"]] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            except (OSError, KeyError, safetensors.SafetensorError):
                continue  # nothing to go on from
        return found

    def add_repaired(self, kept: Mapping[str, int], sublayer: Sublayer, numbers: Mapping[str, Tensor]) -> None:
        """Keep what one more became."""
        if self._file is None:
            return
        name = hashlib.sha256(sublayer.name.encode()).hexdigest()[:16]
        with new_file(self._file.with_name(f"{_REPAIRED}{name}.safetensors")) as staged:
            save_file(dict(numbers), staged, metadata={"of": self._choice(kept), "sublayer": sublayer.name})

    def drop_repaired(self) -> None:
        """Delete refitted weights: a run that is through needs them no more."""
        for file in self._repaired_files():
            file.unlink(missing_ok=True)

    def _repaired_files(self) -> list[Path]:
        return [] if self._file is None else sorted(self._file.parent.glob(f"{_REPAIRED}*.safetensors"))

    def _choice(self, kept: Mapping[str, int]) -> str:
        """Model, data, setting, orders and numbers of units: what refitted weights depend on."""
        text = json.dumps([self._data["of"], self._data["ladders"], sorted(kept.items())])
        return hashlib.sha256(text.encode()).hexdigest()

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
