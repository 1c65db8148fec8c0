"""The module of a directory that bpc wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from torch import nn

from bpc import configs
from bpc.hub.note import NoteError, note_of
from bpc.hub.resize import resize
from bpc.hub.sizes import note_sizes
from bpc.skeleton import check_sizes
from passes.masks import TensorFile
from passes.plan.apply import apply_plan
from passes.plan.data import PlanData

WEIGHTS = "model.safetensors"
# What a save of a transformers model may leave besides config.json: weights in one file, or in several.
WEIGHT_FILES = (WEIGHTS, f"{WEIGHTS}.index.json", "model-?????-of-?????.safetensors")


def load_module(
    directory: Path,
    plans: Sequence[PlanData],
    model_class: Any = None,
    dtype: Any = None,
    device_map: Any = None,
    trust_remote_code: bool = False,
) -> nn.Module:
    """The small module in eval mode, with the saved weights in their dtypes unless ``dtype`` says another.

    ``plans``: what led from the config's model to the small one, for directories whose config has no note of it.
    ``model_class``: by default the one that config.json names, of transformers or of the user's imported ones. The
    others are transformers'. Raises ValueError where the directory does not fit together, and what reading raises.
    """
    config = configs.read_config(directory, trust_remote_code)
    model_class = model_class or _named_class(directory, config, trust_remote_code)
    note = note_of(config)
    sizes = {name: size for file in _weight_files(directory) for name, size in TensorFile(file).shapes().items()}
    check_sizes(model_class, config, sizes, [] if note else plans, lambda skeleton: resize(skeleton, note))
    if not note:
        return _by_plans(directory, model_class(config), plans, dtype, device_map)
    stored = {name: tensor.dtype for name, tensor in _weights(directory) if tensor.is_floating_point()}
    widest = reduce(torch.promote_types, stored.values(), torch.float16) if stored else "auto"
    if len(set(stored.values())) == 1:
        widest = next(iter(stored.values()))
    module, info = model_class.from_pretrained(
        directory,
        dtype=dtype or widest,
        device_map=device_map,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise ValueError(f"{kind.replace('_', ' ')}: {sorted(map(str, info[kind]))[:4]}")
    if dtype is None:
        for name, tensor in module.state_dict(keep_vars=True).items():
            tensor.data = tensor.data.to(stored.get(name, tensor.dtype))
    return module.eval()


def _by_plans(directory: Path, module: nn.Module, plans: Sequence[PlanData], dtype: Any, device_map: Any) -> nn.Module:
    """As bpc 0.1 wrote it: the config knows nothing, so the plans cut the config's model one after the other."""
    if device_map is not None:
        raise ValueError("an earlier bpc wrote it: load it without device_map and save it again first")
    for plan in plans:
        module = apply_plan(plan, module)
    state = module.state_dict(keep_vars=True)
    for name, tensor in _weights(directory):
        if name in state:
            state[name].data = state[name].data.to(tensor.dtype)
    load_model(module, str(directory / WEIGHTS))
    note_sizes(module, [cut for plan in plans[-1:] for cut in plan.cuts])
    return module.eval() if dtype in (None, "auto") else module.eval().to(dtype)


def _weights(directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every saved tensor, of one file or several."""
    for file in _weight_files(directory):
        yield from TensorFile(file).items()


def _weight_files(directory: Path) -> list[Path]:
    found = {file for pattern in WEIGHT_FILES for file in directory.glob(pattern)}
    return sorted(file for file in found if file.suffix != ".json")


def _named_class(directory: Path, config: Any, trust_remote_code: bool) -> Any:
    """The class that config.json names. Raises `NoteError` for one that is not there, or is there twice."""
    import transformers

    if (found := configs.model_class(config, directory, trust_remote_code)) is not None:
        return found
    names = config.architectures if isinstance(config.architectures, list) else []
    own = {cls for cls in _subclasses(transformers.PreTrainedModel) if names and cls.__name__ == names[0]}
    if len(own) == 1:
        return own.pop()
    problem = "transformers has no architecture" if not own else f"{len(own)} imported classes have the name"
    raise NoteError(
        f"{directory / 'config.json'}: {problem} {names}; a class of your own: give it, "
        "bpc.load(directory, model_class=...)"
    )


def _subclasses(cls: Any) -> Iterator[Any]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
