"""Sizes of a small model, read off it for the note in its config. `bpc.hub.resize` gives them back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from bpc.hub.note import Note, NoteError, write_note
from bpc.hub.resize import find, resize
from passes.ir.compact import compact_layers, held_by, runs
from passes.plan.data import Cut
from passes.plan.numbers import changed_attributes

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
            if find(full, name) is not None and tensor.dim() == 1:
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
    layers = compact_layers(small).items()
    spreads = {f"{path}.weight": {d: (n, runs(p)) for d, (n, p) in held_by(layer).items()} for path, layer in layers}
    note = Note(shapes=shapes, biases=biases, kept=kept, spreads=spreads)
    resize(full, note)
    changes = changed_attributes(full, small)
    numbers = {
        path: {name: (getattr(full.get_submodule(path), name), number) for name, number in new.items()}
        for path, new in changes.items()
    }
    return note.model_copy(update={"numbers": numbers})


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


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, tied ones under each of their names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
