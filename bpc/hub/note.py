"""The note in a small model's config: how it differs from the model that the config alone makes.

It stands in ``config.quantization_config``, where transformers looks for what changes a model's layers before its
weights are read, and goes wherever the config goes: into every checkpoint, and every copy of the module.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

METHOD = "bpc"  # the name under which transformers knows the note
_KEY = "quantization_config"


class NoteError(ValueError):
    """A config's note cannot be read, does not fit the model, or forbids to load it; the message says what to do."""


class Note(BaseModel):
    """Sizes of a small model, each beside what the config makes of it, so that another config is noticed.

    Attributes:
        shapes: {parameter or buffer: {dim: (by the config, in the small model)}}, for the dims that differ.
        biases: {bias that the config's model lacks: its length}.
        numbers: {module path: {attribute: (by the config, in the small model)}}, head counts and the like.
        kept: {buffer that checkpoints leave out: {dim: indices that stay}}.
        spreads: {weight of a linear layer: {dim: (size that the forward sees, where runs of the held indices begin and
            end in it)}}; see `passes.ir.compact`.
        masked: the weights are those of a training with block masks, which are not applied to them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    format: Literal[1] = 1
    shapes: dict[str, dict[NonNegativeInt, tuple[NonNegativeInt, NonNegativeInt]]] = {}
    biases: dict[str, NonNegativeInt] = {}
    numbers: dict[str, dict[str, tuple[int, int]]] = {}
    kept: dict[str, dict[NonNegativeInt, tuple[NonNegativeInt, ...]]] = {}
    spreads: dict[str, dict[NonNegativeInt, tuple[NonNegativeInt, tuple[NonNegativeInt, ...]]]] = {}
    masked: bool = False

    def __bool__(self) -> bool:
        return self != Note()

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """From what `plain` made. Raises `NoteError`."""
        try:
            return cls.model_validate({key: value for key, value in content.items() if key != "quant_method"})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (_KEY, *first["loc"])))
            raise NoteError(
                f"config.json: {where}: {first['msg']} ({first['input']!r}); a newer bpc wrote it, or it is damaged"
            ) from None

    def plain(self) -> dict[str, Any]:
        """Dicts, lists and numbers, as they stand in config.json."""
        return {"quant_method": METHOD, "format": self.format, **self.model_dump(mode="json", exclude_defaults=True)}


def note_of(config: Any) -> Note:
    """The note in a config; an empty one where there is none. Raises `NoteError` for one that cannot be read."""
    content = getattr(config, _KEY, None)
    if not isinstance(content, dict) or content.get("quant_method") != METHOD:
        return Note()
    return Note.read(content)


def write_note(config: Any, note: Note) -> None:
    """Put a note into a config and its parts; an empty one takes the old away.

    A part, such as ``text_config``, is what transformers reads where only that part of the model is loaded. Raises
    `NoteError` where another tool's note stands.
    """
    content = getattr(config, _KEY, None)
    if content is not None and not (isinstance(content, dict) and content.get("quant_method") == METHOD):
        raise NoteError(
            f"the model's config says that {type(content).__name__ if not isinstance(content, dict) else content} "
            "quantized it, which a pruned model's config cannot say as well: dequantize it before shrinking"
        )
    if note:
        setattr(config, _KEY, note.plain())
    elif content is not None:
        delattr(config, _KEY)
    for part in parts_of(config).values():
        write_note(part, note)


def parts_of(config: Any) -> dict[str, Any]:
    """The configs that a config of several models holds."""
    named = ((name, getattr(config, name, None)) for name in getattr(config, "sub_configs", ()))
    return {name: part for name, part in named if hasattr(part, "save_pretrained")}
