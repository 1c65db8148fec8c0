"""A model that a config made gets the sizes that the config's note tells of.

This text also goes into the file that a self-contained directory brings along (`bpc.hub.standalone`): it needs torch
and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from bpc.hub.note import Note, NoteError
from passes.ir.compact import compact, from_runs
from passes.plan.sizes import tell_sizes

Sizes = Mapping[int, tuple[int, int]]


def resize(model: nn.Module, note: Note) -> None:
    """Give a model that its config made, on the meta device or not, the noted sizes, in place; weights are lost.

    A model of another class takes what it shares with the noted one: the base model of one with a head, and the other
    way round. Buffers that checkpoints leave out keep their size until `cut_buffers`. Raises `NoteError` where the
    config makes other sizes than it did, and for a part that names its layers in another way.
    """
    if note.shapes and not any(find(model, name) for name in note.shapes):
        raise NoteError(
            f"no layer that the small model's config.json tells of ({next(iter(note.shapes))}, …) is in "
            f"{type(model).__name__}: load it as the class it was saved from, and take the part from that"
        )
    new: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # with the old ones, whose ids must stay theirs
    for name, dims in note.shapes.items():
        found = find(model, name)
        if found is None or name in note.kept:
            continue
        owner, leaf = found
        old = owner._parameters.get(leaf, owner._buffers.get(leaf))
        if old is None:
            continue
        shape = list(old.shape)
        for dim, (by_config, size) in dims.items():
            if dim >= len(shape) or shape[dim] != by_config:
                raise NoteError(
                    f"config.json: the small model was made from {by_config} in dim {dim} of {name}, and the config "
                    f"makes {tuple(old.shape)} of it: load it with the config it was saved with"
                )
            shape[dim] = size
        _, tensor = new.setdefault(id(old), (old, _like(old, shape)))
        (owner._parameters if leaf in owner._parameters else owner._buffers)[leaf] = tensor  # type: ignore[assignment]
        tell_sizes(owner, None)
    for name, length in note.biases.items():
        if (found := find(model, name)) is not None and (weight := found[0]._parameters.get("weight")) is not None:
            found[0].register_parameter(found[1], nn.Parameter(weight.new_empty(length)))
    for name, held in note.spreads.items():
        if (found := find(model, name)) is not None:
            _compact(found[0], name, held, note.shapes.get(name, {}))
    for path, numbers in note.numbers.items():
        module = next((m for m in _modules(model, path) if all(hasattr(m, name) for name in numbers)), None)
        for name, (by_config, number) in numbers.items() if module is not None else ():
            if getattr(module, name) != by_config:
                raise NoteError(
                    f"config.json: the small model was made where {path}.{name} is {by_config}, and the config makes "
                    f"{getattr(module, name)} of it: load it with the config it was saved with"
                )
            setattr(module, name, number)


def _compact(layer: nn.Module, name: str, held: Mapping[int, tuple[int, tuple[int, ...]]], shape: Sizes) -> None:
    try:
        if any(dim not in shape or size > shape[dim][0] for dim, (size, _) in held.items()):
            raise ValueError("its forward would see more than the config makes")
        compact(layer, {dim: (size, from_runs(runs, size)) for dim, (size, runs) in held.items()})
    except (TypeError, ValueError) as error:
        raise NoteError(f"config.json: quantization_config.spreads.{name}: {error}; it is damaged") from error


def cut_buffers(model: nn.Module, note: Note) -> None:
    """Cut the buffers that checkpoints leave out, once the model has made them, in place."""
    for name, dims in note.kept.items():
        if (found := find(model, name)) is not None and (value := found[0]._buffers.get(found[1])) is not None:
            for dim, keep in dims.items():
                value = value.index_select(dim, torch.tensor(keep, device=value.device))
            found[0]._buffers[found[1]] = value


def unfit(model: nn.Module, note: Note, stored: Mapping[str, tuple[int, ...]]) -> str | None:
    """What of a checkpoint, {name: shape}, does not have the noted sizes, in words.

    Dims that the note does not speak of are the config's affair.
    """
    for name, dims in note.shapes.items():
        sizes = {dim: small for dim, (_, small) in dims.items()}
        for spelled in _spellings(model, name) if name not in note.kept else ():
            shape = stored.get(spelled)
            if shape is not None and any(dim >= len(shape) or shape[dim] != size for dim, size in sizes.items()):
                return (
                    f"{spelled} has shape {shape}, where dim {next(iter(sizes))} has to be {sizes[next(iter(sizes))]}"
                )
    return None


def _like(old: torch.Tensor, shape: list[int]) -> torch.Tensor:
    empty = old.detach().new_empty(shape)
    return nn.Parameter(empty, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else empty


def _spellings(model: nn.Module, name: str) -> Iterator[str]:
    """A name as it is, as the base model alone has it, and as a model with a head has it."""
    yield name
    if prefix := getattr(model, "base_model_prefix", ""):
        if name == prefix or name.startswith(f"{prefix}."):
            yield name[len(prefix) + 1 :]
        yield f"{prefix}.{name}" if name else prefix


def _modules(model: nn.Module, path: str) -> Iterator[nn.Module]:
    for spelled in _spellings(model, path):
        try:
            yield model.get_submodule(spelled)
        except AttributeError:
            continue


def find(model: nn.Module, name: str) -> tuple[nn.Module, str] | None:
    """The module that has a parameter or buffer, present or None, and its name there."""
    for spelled in _spellings(model, name):
        path, _, leaf = spelled.rpartition(".")
        try:
            owner = model.get_submodule(path)
        except AttributeError:
            continue
        if leaf in owner._parameters or leaf in owner._buffers:
            return owner, leaf
    return None
