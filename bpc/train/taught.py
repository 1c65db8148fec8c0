"""A teacher that is asked once: its outputs for every row of the data, kept in a file.

A teacher does not change, and data are read several times: each reading after the first saves its forward pass. What is
kept are the outputs at real positions, one after the other; padding, which differs from batch to batch, is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from bpc.train.distill import logits_of
from bpc.train.share import IGNORED_LABEL
from bpc.train.teacher import teacher_inputs
from bpc.writing import new_file

PREFIX = "teacher_"  # of columns with a teacher's outputs
LARGEST = 1 << 30  # bytes that a file may take: a language model's logits are better asked for again
Rows: TypeAlias = Any  # rows by their number: a list of dicts, a Dataset
Collate: TypeAlias = Callable[[list[dict[str, Any]]], Mapping[str, Any]]


@dataclass(frozen=True)
class Said:
    """One output for all rows: ``values`` (positions of all rows, …), row i from ``offsets[i]`` to ``offsets[i + 1]``.

    ``mask``: the batch's tensor that tells its positions from padding; "" for an output with one entry a row.
    """

    values: Tensor
    offsets: Tensor
    mask: str


class Taught(Dataset[dict[str, Any]]):
    """Rows with what the teacher said of each beside them, in columns ``teacher_logits``, …; see `collator`."""

    def __init__(self, rows: Rows, outputs: Mapping[str, Said]) -> None:
        self.rows, self.outputs = rows, outputs

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        known = {
            PREFIX + name: said.values[int(said.offsets[index]) : int(said.offsets[index + 1])]
            for name, said in self.outputs.items()
        }
        return {**self.rows[index], **known}

    def collator(self, collate: Collate) -> Collate:
        """``collate``, with the teacher's outputs at the batch's real positions and 0 at its padding.

        Rows without them, as of held-out data, are collated as they are. `bpc.Trainer` calls this itself.
        """
        masks = {PREFIX + name: said.mask for name, said in self.outputs.items()}

        def collated(rows: list[dict[str, Any]]) -> dict[str, Any]:
            batch = dict(collate([{k: v for k, v in row.items() if k not in masks} for row in rows]))
            for name, mask in masks.items():
                if name not in rows[0]:
                    continue
                values = torch.cat([row[name] for row in rows])
                if mask:
                    places = _real(batch[mask], mask)
                    values = values.new_zeros(*places.shape, *values.shape[1:]).masked_scatter_(
                        places.reshape(*places.shape, *[1] * (values.dim() - 1)), values
                    )
                batch[name] = values
            return batch

        return collated


def ask_once(
    teacher: nn.Module,
    rows: Rows,
    collate: Collate,
    file: str | os.PathLike[str],
    *,
    key: str,
    batch_size: int = 32,
    largest: int = LARGEST,
) -> Taught | None:
    """The rows with the teacher's outputs: from ``file`` if it was written under the same ``key``, else asked for now.

    Parameters
    ----------
    teacher: any model whose outputs `bpc.Trainer` distils; its logits are kept in float32.
    rows: what a trainer trains on, unpadded; ``collate`` makes batches of them. The result takes their place:
        ``bpc.Trainer(train_dataset=taught, data_collator=collate, …)``, without ``teacher=``.
    key: names data, teacher and tokenizer, for instance by their sha256.

    Returns None where the outputs would take more than ``largest`` bytes or have positions that are neither the inputs'
    nor the labels': such a teacher is to be asked in every step.
    """
    path = Path(file)
    held = _read(path, key) if path.exists() else None
    if held is not None:
        return Taught(rows, held)
    device = next(teacher.parameters()).device
    teacher.eval()
    parts: dict[str, list[Tensor]] = {}
    counts: dict[str, list[int]] = {}
    masks: dict[str, str] = {}
    starts = range(0, len(rows), batch_size)
    for start in track(starts, "asking the teacher", transient=True):
        chosen = [dict(rows[i]) for i in range(start, min(start + batch_size, len(rows)))]
        batch = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in collate(chosen).items()}
        with torch.no_grad():
            said = logits_of(teacher(**teacher_inputs(batch, teacher)))
        for name, value in said.items():
            mask = _mask_of(value, batch, teacher)
            if mask is None:
                return None
            masks[name] = mask
            places = _real(batch[mask], mask) if mask else torch.ones(len(value), 1, dtype=torch.bool)
            kept = value.float()[places] if mask else value.float()
            if kept.nbytes * len(rows) > largest * len(chosen):
                return None
            parts.setdefault(name, []).append(kept.cpu())
            counts.setdefault(name, [0]).extend(places.sum(1).tolist())
    found = {name: Said(torch.cat(parts[name]), torch.tensor(counts[name]).cumsum(0), masks[name]) for name in parts}
    _write(path, key, found)
    return Taught(rows, found)


def _mask_of(value: Tensor, batch: Mapping[str, Any], teacher: Any) -> str | None:
    """The batch's tensor that tells an output's real positions; "" if it has none, None if no tensor fits."""
    spans = "start_positions" in batch or "end_positions" in batch  # logits (rows, length) choose a position
    if value.dim() < 2 or (value.dim() == 2 and not spans):
        return ""
    decodes = bool(getattr(getattr(teacher, "config", None), "is_encoder_decoder", False)) and not spans
    mask = "labels" if decodes else "attention_mask"
    given = batch.get(mask)
    return mask if isinstance(given, Tensor) and given.shape == value.shape[:2] else None


def _real(mask: Tensor, name: str) -> Tensor:
    return mask != IGNORED_LABEL if name == "labels" else mask != 0


def _read(file: Path, key: str) -> dict[str, Said] | None:
    with safe_open(file, "pt") as held:
        about = held.metadata() or {}
        if about.pop("key", None) != key:
            return None
        return {n: Said(held.get_tensor(f"{n}.values"), held.get_tensor(f"{n}.offsets"), m) for n, m in about.items()}


def _write(file: Path, key: str, found: Mapping[str, Said]) -> None:
    values = {f"{name}.values": said.values for name, said in found.items()}
    offsets = {f"{name}.offsets": said.offsets for name, said in found.items()}
    with new_file(file) as staged:
        save_file(values | offsets, staged, metadata={"key": key, **{name: said.mask for name, said in found.items()}})
