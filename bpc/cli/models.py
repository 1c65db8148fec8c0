"""Local model directories: the model with the head its config names, its tokenizer and its traced graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import fx, nn

from bpc.cli.errors import CommandError
from bpc.inputs import example_inputs
from passes.masks import BlockScores, MaskSource
from passes.program import trace


def load_model(directory: Path, dtype: torch.dtype | None = None) -> nn.Module:
    """The model of a local directory, in eval mode; the class is the first of ``architectures`` in its config.json.

    Small models written by bpc load too. Nothing is downloaded and no pickle is read. Raises `CommandError`.
    """
    _check_directory(directory)
    from bpc.dense import is_dense_directory, load

    if is_dense_directory(directory):
        return load(directory).module
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    name = next(iter(config.architectures or ()), None)
    model_class = transformers.AutoModel if name is None else getattr(transformers, name, None)
    if model_class is None:
        raise CommandError(
            f"{directory / 'config.json'} names the architecture {name!r}, which transformers "
            f"{transformers.__version__} does not have; use the Python API with a model object instead"
        )
    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    model: nn.Module = model_class.from_pretrained(directory, local_files_only=True, use_safetensors=True, **options)
    return model.eval()


def load_graph(directory: Path) -> fx.GraphModule:
    """The traced graph of a model directory; of one that bpc wrote, the small graph without its dead sublayers."""
    from bpc.dense import is_dense_directory, load

    if directory.is_dir() and is_dense_directory(directory):
        return load(directory).graph_module
    model = load_model(directory)
    return trace(model, example_inputs(model, load_tokenizer(directory)))


def mask_source(path: Path | None, threshold: float | None) -> MaskSource:
    """What `passes.shrink` takes as masks: a mask file, block scores read with a threshold, or None."""
    return BlockScores(path, threshold) if path is not None and threshold is not None else path


def load_tokenizer(directory: Path) -> Any | None:
    """The directory's tokenizer, or None if it has none."""
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        return None
    return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise CommandError(f"{directory} is no directory; give one that holds config.json and model.safetensors")
    if not (directory / "config.json").exists():
        raise CommandError(f"{directory} has no config.json, so it is no Hugging Face model directory")
