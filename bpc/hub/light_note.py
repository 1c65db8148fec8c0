"""`bpc.hub.note.Note` without pydantic, for the file that a self-contained directory brings along.

bpc itself does not import this. The text needs no package at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

METHOD = "bpc"


class NoteError(ValueError):
    """A config's note cannot be read, does not fit the model, or forbids to load it; the message says what to do."""


def _nested(value: Any, kind: Any) -> Any:
    return kind(_nested(entry, kind) for entry in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Note:
    """Sizes of a small model beside what its config makes."""

    format: int = 1
    shapes: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    biases: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    kept: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict)
    spreads: dict[str, dict[int, tuple[int, tuple[int, ...]]]] = field(default_factory=dict)
    masked: bool = False

    @classmethod
    def read(cls, content: dict[str, Any]) -> Note:
        """From `plain`, also from JSON, whose keys are text. Raises `NoteError`."""
        content = {key: value for key, value in content.items() if key != "quant_method"}
        if content.get("format", 1) != 1 or content.keys() - cls.__dataclass_fields__.keys():
            raise NoteError("config.json: quantization_config: a newer bpc wrote it; install bpc to load this model")
        for part in ("shapes", "kept", "spreads"):
            entries = content.get(part, {}).items()
            content[part] = {name: {int(dim): _nested(v, tuple) for dim, v in dims.items()} for name, dims in entries}
        return cls(**content)

    def plain(self) -> dict[str, Any]:
        """Dicts, lists and numbers, as they stand in config.json."""
        found = {name: value for name, value in vars(self).items() if name != "format" and value}
        for part in {"shapes", "kept", "spreads"} & found.keys():
            found[part] = {
                n: {str(dim): _nested(v, list) for dim, v in dims.items()} for n, dims in found[part].items()
            }
        return {"quant_method": METHOD, "format": self.format, **found}
