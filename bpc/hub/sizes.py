"""Sizes of a small model: read off it, and given to the model that its config makes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from bpc.hub.note import Note, NoteError, write_note
from passes.plan.data import Cut
from passes.plan.numbers import changed_attributes
from passes.plan.sizes import tell_sizes

_UNSAVABLE = "bpc_unsavable"  # attribute of a small module: why its config cannot say how to make it


def note_sizes(small: nn.Module, cuts: Iterable[Cut] = (), before: Note | None = None) -> None:
    """Write into a small module's config how the module differs from what the config makes.

    ``cuts``, ``before``: those of the last shrink, and the note of the model it was made from, for buffers that
    checkpoints leave out. A module without a transformers config is left as it is. Where a config cannot say it,
    `unsavable` gives the reason: the module runs and trains all the same.
    """
    config: Any = getattr(small, "config", None)
    if hasattr(config, "save_pretrained"):
        try:
            write_note(config, differences(skeleton(small), small, cuts, before or Note()))
        except NoteError as refusal:
            small.__dict__[_UNSAVABLE] = str(refusal)


def unsavable(small: nn.Module) -> str:
    """Why a small module cannot be saved so that it loads again; empty where it can."""
    return str(small.__dict__.get(_UNSAVABLE, ""))


def differences(full: nn.Module, small: nn.Module, cuts: Iterable[Cut], before: Note) -> Note:
    """How ``small`` differs from ``full``, a model of the same class without weights, which takes its sizes."""
    cut_of = {cut.parameter: cut for cut in cuts}
    by_config, saved = tensors_of(full), small.state_dict().keys()
    shapes: dict[str, dict[int, tuple[int, int]]] = {}
    biases: dict[str, int] = {}
    kept: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, tensor in tensors_of(small).items():
        if name not in by_config:
            if _find(full, name) is not None and tensor.dim() == 1:
                biases[name] = len(tensor)
            continue
        sizes = by_config[name].shape
        if len(sizes) != tensor.dim():
            raise NoteError(f"{name} has {tensor.dim()} dims; the model's config makes {len(sizes)} of them")
        changed = {dim: (a, b) for dim, (a, b) in enumerate(zip(sizes, tensor.shape, strict=True)) if a != b}
        if changed:
            shapes[name] = changed
            if name not in saved:
                kept[name] = _kept(name, changed, before.kept.get(name, {}), cut_of.get(name))
    note = Note(shapes=shapes, biases=biases, kept=kept)
    resize(full, note)
    changes = changed_attributes(full, small)
    numbers = {
        path: {name: (getattr(full.get_submodule(path), name), number) for name, number in new.items()}
        for path, new in changes.items()
    }
    return note.model_copy(update={"numbers": numbers})


def resize(model: nn.Module, note: Note) -> None:
    """Give a model that its config made, on the meta device or not, the noted sizes, in place; weights are lost.

    A model of another class takes what it shares with the noted one: the base model of one with a head, and the other
    way round. Buffers that checkpoints leave out keep their size until `cut_buffers`. Raises `NoteError` where the
    config makes other sizes than it did, and for a part that names its layers in another way.
    """
    if note.shapes and not any(_find(model, name) for name in note.shapes):
        raise NoteError(
            f"no layer that the small model's config.json tells of ({next(iter(note.shapes))}, …) is in "
            f"{type(model).__name__}: load it as the class it was saved from, and take the part from that"
        )
    new: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # with the old ones, whose ids must stay theirs
    for name, dims in note.shapes.items():
        found = _find(model, name)
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
        if (found := _find(model, name)) is not None and (weight := found[0]._parameters.get("weight")) is not None:
            found[0].register_parameter(found[1], nn.Parameter(weight.new_empty(length)))
    for path, numbers in note.numbers.items():
        module = next((m for m in _modules(model, path) if all(hasattr(m, name) for name in numbers)), None)
        for name, (by_config, number) in numbers.items() if module is not None else ():
            if getattr(module, name) != by_config:
                raise NoteError(
                    f"config.json: the small model was made where {path}.{name} is {by_config}, and the config makes "
                    f"{getattr(module, name)} of it: load it with the config it was saved with"
                )
            setattr(module, name, number)


def cut_buffers(model: nn.Module, note: Note) -> None:
    """Cut the buffers that checkpoints leave out, once the model has made them, in place."""
    for name, dims in note.kept.items():
        if (found := _find(model, name)) is not None and (value := found[0]._buffers.get(found[1])) is not None:
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


def skeleton(module: nn.Module) -> nn.Module:
    """The model that a module's config makes, without weights. Raises `NoteError` where it makes none."""
    config = copy.deepcopy(module.config)
    try:
        with torch.random.fork_rng(devices=()), torch.device("meta"):
            made: nn.Module = type(module)(config)
    except Exception as error:  # a class of the user's: anything can come out of it
        raise NoteError(
            f"{type(module).__name__} cannot be made from its config alone ({type(error).__name__}: {error}), so no "
            "directory of it can be loaded: keep its state_dict and `plan.to_json()`, or export the graph view"
        ) from error
    return made


def _kept(
    name: str, changed: Mapping[int, tuple[int, int]], before: Mapping[int, tuple[int, ...]], cut: Cut | None
) -> dict[int, tuple[int, ...]]:
    """The indices that stay of a buffer, counted in the config's model."""
    found: dict[int, tuple[int, ...]] = {}
    for dim, (by_config, size) in changed.items():
        indices = before.get(dim, tuple(range(by_config)))
        if cut is not None and dim in cut.keep and len(indices) == cut.shape[dim]:
            indices = tuple(indices[i] for i in cut.keep[dim])
        if len(indices) != size:
            raise NoteError(f"checkpoints leave the buffer {name} out, and nothing says which of its entries stay")
        found[dim] = indices
    return found


def _like(old: torch.Tensor, shape: list[int]) -> torch.Tensor:
    empty = old.detach().new_empty(shape)
    return nn.Parameter(empty, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else empty


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, tied ones under each of their names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


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


def _find(model: nn.Module, name: str) -> tuple[nn.Module, str] | None:
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
