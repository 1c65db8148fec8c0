"""What a run has measured so far, on disk: an interrupted one goes on from its last whole layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from bpc.oneshot.batches import Batch
from bpc.oneshot.ladder import Ladder, Width
from bpc.oneshot.ladders import Setting
from bpc.oneshot.search import Selection
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import Sublayer
from bpc.writing import new_file
from passes.masks import TensorFile

_NAME = "one-shot.json"
_REPAIRED, _BASES = "repaired-", "bases-"


class Saved:
    """Measurements of one model on one set of batches; of others, a directory's are left aside and replaced.

    ``directory``: None keeps nothing.
    """

    def __init__(
        self, directory: str | Path | None, original: Original, batches: Sequence[Batch], setting: Setting
    ) -> None:
        self._file = None if directory is None else Path(directory) / _NAME
        self._data: dict[str, Any] = {"of": "", "ladders": {}}
        if self._file is None:
            return
        self._data["of"] = _fingerprint(original, batches, setting)
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            if found["of"] == self._data["of"]:
                self._data = found
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing to go on from

    def ladders(self) -> dict[str, Ladder]:
        """Those measured already, by sublayer."""
        found = {}
        for name, entry in self._data["ladders"].items():
            bases = self._tensors(_BASES, name, self._data["of"]) if entry["widths"] else {}
            if bases is None or bases.keys() != entry["widths"].keys():
                continue  # measured again
            widths = {kind: Width(bases[kind], _losses(losses)) for kind, losses in entry["widths"].items()}
            found[name] = Ladder(tuple(entry["order"]), _losses(entry["losses"]), **widths)
        return found

    def add_ladder(self, sublayer: Sublayer, ladder: Ladder) -> None:
        """Keep one more."""
        widths = {kind: width for kind in ("values", "keys") if (width := getattr(ladder, kind)) is not None}
        if widths:
            self._add_tensors(
                _BASES, sublayer.name, self._data["of"], {kind: width.basis for kind, width in widths.items()}
            )
        self._data["ladders"][sublayer.name] = {
            "order": list(ladder.order),
            "losses": ladder.losses,
            "widths": {kind: width.losses for kind, width in widths.items()},
        }
        self._write()

    def repaired(self, selection: Selection) -> dict[str, Mapping[str, Tensor]]:
        """Refitted weights, by sublayer, of an earlier run that chose the same units; read when they are asked for."""
        chosen = self._choice(selection)
        found = {name: self._tensors(_REPAIRED, name, chosen) for name in selection.kept}
        return {name: numbers for name, numbers in found.items() if numbers is not None}

    def add_repaired(
        self, selection: Selection, sublayer: Sublayer, numbers: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Keep what one more became; gives the same, read from its file when it is asked for."""
        file = self._add_tensors(_REPAIRED, sublayer.name, self._choice(selection), numbers)
        return numbers if file is None else TensorFile(file)

    def drop_repaired(self) -> None:
        """Delete refitted weights: a run that is through needs them no more."""
        for file in [] if self._file is None else self._file.parent.glob(f"{_REPAIRED}*.safetensors"):
            file.unlink(missing_ok=True)

    def _place(self, kind: str, sublayer: str) -> Path | None:
        """The file of a sublayer's tensors: names of blocks are no file names."""
        name = f"{kind}{hashlib.sha256(sublayer.encode()).hexdigest()[:16]}.safetensors"
        return None if self._file is None else self._file.with_name(name)

    def _tensors(self, kind: str, sublayer: str, of: str) -> Mapping[str, Tensor] | None:
        """What `_add_tensors` kept of a sublayer; None for nothing, or of something else."""
        file = self._place(kind, sublayer)
        if file is None or not file.exists():
            return None
        try:
            with safetensors.safe_open(file, "pt") as opened:
                if (opened.metadata() or {}).get("of") != of:
                    return None
        except (OSError, safetensors.SafetensorError):
            return None
        return TensorFile(file)

    def _add_tensors(self, kind: str, sublayer: str, of: str, tensors: Mapping[str, Tensor]) -> Path | None:
        file = self._place(kind, sublayer)
        if file is not None:
            with new_file(file) as staged:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, staged, metadata={"of": of})
        return file

    def _choice(self, selection: Selection) -> str:
        """Model, data, setting, orders and numbers of units: what refitted weights depend on."""
        text = json.dumps([self._data["of"], self._data["ladders"], asdict(selection)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _write(self) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with new_file(self._file) as staged:
                Path(staged).write_text(json.dumps(self._data), encoding="utf-8")


def _losses(found: Mapping[str, float]) -> dict[int, float]:
    return {int(count): float(loss) for count, loss in found.items()}


def _fingerprint(original: Original, batches: Sequence[Batch], setting: Setting) -> str:
    digest = hashlib.sha256(json.dumps(asdict(setting), sort_keys=True).encode())
    for name, _ in original.graph.named_parameters():
        digest.update(name.encode())
        digest.update(_bytes(original.weights[name]))
    for batch in batches:
        for name, value in sorted(batch.items()):
            digest.update(name.encode())
            digest.update(_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    """What lies in it, not copied."""
    flat = tensor.contiguous().flatten()
    return flat.view(torch.uint8).numpy() if flat.numel() else b""
