"""Token ids and vocabulary sizes in configs, by the names that transformers gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from bpc.hub.note import parts_of

_ONE_OR_MANY = re.compile(r"(^|_)tokens?_(id|ids|index)$|^(bos|eos|pad|unk|mask)_index$")
_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids")
_BY_NAME = ("lang_to_id", "task_to_id")  # {name: id}
_SIZE = re.compile(r"(^|_)vocab_size$|^n_words$")


def configs_of(model: nn.Module, rows: int) -> list[Any]:
    """The configs in a model, each once, that speak of a vocabulary of ``rows`` tokens, or of none of their own."""
    found: dict[int, Any] = {}
    for module in model.modules():
        for config in _with_parts(getattr(module, "config", None)):
            found[id(config)] = config
        if (generation := getattr(module, "generation_config", None)) is not None:
            found[id(generation)] = generation
    sizes = {key: getattr(config, "vocab_size", None) for key, config in found.items()}
    return [config for key, config in found.items() if sizes[key] in (rows, None)]


def _with_parts(config: Any) -> Iterator[Any]:
    if hasattr(config, "save_pretrained"):
        yield config
        for part in parts_of(config).values():
            yield from _with_parts(part)


def referred_ids(config: Any, rows: int) -> set[int]:
    """The ids below ``rows`` that a config names."""
    found: set[int] = set()

    def note(index: int) -> int:
        found.add(index)
        return index

    _changed(vars(config), rows, note)
    return {index for index in found if 0 <= index < rows}


def renumber(config: Any, rows: int, new: Mapping[int, int], size: int) -> None:
    """Write new ids, {id: new id}, and the new size into a config, in place; ids that are no row's stay."""
    for name, value in _changed(vars(config), rows, lambda index: new.get(index, index)).items():
        setattr(config, name, value)
    for name, value in list(vars(config).items()):
        if _SIZE.search(name) and value == rows:
            setattr(config, name, size)


def _changed(entries: Mapping[str, Any], rows: int, change: Callable[[int], int]) -> dict[str, Any]:
    """Entries that hold ids, with ``change`` done to each id."""

    def deep(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(deep, value))
        return change(value) if type(value) is int else value

    found: dict[str, Any] = {}
    for name, value in entries.items():
        if entries.get(f"{str(name).partition('_')[0]}_vocab_size", rows) != rows:
            continue  # of another vocabulary: t2u_pad_token_id beside t2u_vocab_size
        if _ONE_OR_MANY.search(str(name)) or name in _LISTS:
            found[name] = deep(value)
        elif name in _BY_NAME and isinstance(value, Mapping):
            found[name] = {key: deep(index) for key, index in value.items()}
        elif name == "forced_decoder_ids" and value:
            found[name] = [[position, deep(index)] for position, index in value]
        elif name == "sequence_bias" and value:
            pairs = value.items() if isinstance(value, Mapping) else value
            found[name] = [[list(map(change, sequence)), bias] for sequence, bias in pairs]
        elif isinstance(value, dict) and (inner := _changed(value, rows, change)):
            found[name] = value | inner  # task_specific_params and the like
    return found
