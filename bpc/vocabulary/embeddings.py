"""A model with fewer tokens: its embeddings, output biases and configs.

What depends on the vocabulary is what the model's class makes of another vocabulary size: the model is built twice
without weights, from its config and from the config with the new size, and the weights whose sizes differ are cut. So
are the Python numbers (padding indices and sizes) that differ. Nothing goes by the name of an architecture or a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bpc.hub.note import NoteError
from bpc.hub.sizes import skeleton, tensors_of
from bpc.vocabulary.errors import VocabularyError
from bpc.vocabulary.ids import configs_of, renumber
from passes.plan.apply import apply_plan
from passes.plan.copies import share_copy
from passes.plan.data import Cut, PlanData
from passes.plan.numbers import changed_attributes


def vocabulary_rows(model: nn.Module) -> int:
    """Rows of a model's input embedding; of its parts' where it names none, such as one of two towers.

    Raises `VocabularyError` where there is none, where there are several sizes, and where no config sizes it.
    """
    sizes = _embedding_rows(model) or {size for module in model.modules() for size in _embedding_rows(module)}
    if len(sizes) != 1:
        found = f"embeddings of {' and '.join(map(str, sorted(sizes)))} rows" if sizes else "no embedding of tokens"
        raise VocabularyError(f"{type(model).__name__} has {found} (get_input_embeddings); one vocabulary is reduced")
    rows = sizes.pop()
    if not any(getattr(config, "vocab_size", None) == rows for config in configs_of(model, rows)):
        size = getattr(getattr(model, "config", None), "vocab_size", None)
        raise VocabularyError(f"the input embedding has {rows} rows, and the config speaks of {size} (vocab_size)")
    return rows


def _embedding_rows(module: nn.Module) -> set[int]:
    try:
        embedding = module.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return set()
    return {len(embedding.weight)} if isinstance(embedding, nn.Embedding) else set()


def cut_vocabulary(model: nn.Module, kept: Sequence[int]) -> tuple[nn.Module, dict[str, int]]:
    """A copy of ``model`` with the tokens ``kept``, in that order, and {weight: dim that was cut}, ties included.

    Weights that do not depend on the vocabulary are shared. Raises `VocabularyError`, naming the weight, for what is as
    large as the vocabulary and is not understood.
    """
    rows, new = vocabulary_rows(model), {old: i for i, old in enumerate(kept)}
    base = share_copy(model)
    for config in configs_of(base, rows):
        renumber(config, rows, new, len(kept))
    try:
        before, after = skeleton(model), skeleton(base)
    except NoteError as error:
        raise VocabularyError(str(error)) from error
    dims = _dims(tensors_of(before), tensors_of(after), tensors_of(model), rows, len(kept))
    tensors, canonical = tensors_of(model), dict[int, str]()
    aliases = {name: canonical.setdefault(id(tensor), name) for name, tensor in tensors.items() if name in dims}
    cuts = tuple(Cut(name, tuple(tensors[name].shape), {dims[name]: tuple(kept)}) for name in canonical.values())
    _refuse_others(model, tensors, dims, canonical, rows)
    present = dict(base.named_modules())
    numbers = {path: n for path, n in changed_attributes(before, after).items() if path in present}
    return apply_plan(PlanData(cuts, aliases=aliases, attributes=numbers), base), dims


def _dims(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    rows: int,
    size: int,
) -> dict[str, int]:
    """{weight that the config's vocabulary size sizes: its dim}."""
    found = {}
    for name, tensor in own.items():
        if name not in before or name not in after or before[name].shape == after[name].shape:
            continue
        pairs = enumerate(zip(before[name].shape, after[name].shape, strict=True))
        changed = {dim: sizes for dim, sizes in pairs if sizes[0] != sizes[1]}
        dim = next(iter(changed))
        if len(changed) > 1 or changed[dim] != (rows, size) or tensor.shape[dim] != rows:
            raise VocabularyError(
                f"{name} {tuple(tensor.shape)} depends on the vocabulary in a way that is not understood: for {rows} "
                f"tokens its class makes {tuple(before[name].shape)}, for {size} {tuple(after[name].shape)}"
            )
        found[name] = dim
    return found


def _refuse_others(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], dims: Mapping[str, int], cut: Mapping[int, str], rows: int
) -> None:
    """Raises `VocabularyError` for a tied weight that only one name of is sized, and for others of ``rows`` entries.

    Those may be as large by chance where the config has the same number for something else: then what the models
    compute has to tell.
    """
    configs: list[Any] = configs_of(model, rows)
    entries = [(name, value) for config in configs for name, value in vars(config).items() if value == rows]
    by_chance = any("vocab" not in name and name != "n_words" for name, value in entries if type(value) is int)
    for name, tensor in tensors.items():
        if name not in dims and (id(tensor) in cut or (rows in tensor.shape and not by_chance)):
            raise VocabularyError(
                f"{name} {tuple(tensor.shape)} is as large as the vocabulary, and {type(model).__name__} does not size "
                "it by its config's vocab_size: nothing says whether its entries are tokens"
            )
