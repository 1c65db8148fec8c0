"""What a user of `bpc prune` chose."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpc.terminal.errors import CommandError

if TYPE_CHECKING:
    from bpc.spec import Spec


@dataclass(frozen=True)
class Choices:
    """The options of the command, by the names of its parameters; they are described there."""

    model: Path
    data: str
    out: Path
    spec: str
    one_shot: bool
    task: str | None
    evaluate: str | None
    teacher: Path | None
    rewind: Path | None
    columns: list[str] | None
    text: str | None
    pair: str | None
    label: str | None
    dense_epochs: float
    dense_learning_rate: float
    epochs: float
    fill_epochs: float
    batch_size: int
    learning_rate: float | None
    fill_learning_rate: float | None
    max_length: int | None
    freeze_embeddings: bool
    bf16: bool | None
    fsdp: bool
    time_it: bool
    minutes: float | None
    dry_run: bool
    seed: int
    resume: bool
    force: bool
    keep_checkpoints: bool

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> Choices:
        """From all parameters of the command. Raises `CommandError` for inf and nan, which no comparison refuses."""
        chosen = cls(**{field.name: given[field.name] for field in fields(cls)})
        for field in fields(cls):
            value = getattr(chosen, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise CommandError(f"--{field.name.replace('_', '-')} {value}: give a finite number")
        return chosen


def spec_of(text: str) -> Spec:
    """The spec that ``--spec`` names, or a recipe's table holds (as JSON). Raises `SpecError`."""
    from bpc.spec import load_spec

    return load_spec(json.loads(text) if text.startswith("{") else text)
