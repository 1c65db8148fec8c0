"""Local model directories: the model with the head its config names, and example inputs to trace it with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import fx, nn

from bpc.cli.errors import CommandError
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
    return trace(model, example_inputs(model, directory))


def mask_source(path: Path | None, threshold: float | None) -> MaskSource:
    """What `passes.shrink` takes as masks: a mask file, block scores read with a threshold, or None."""
    return BlockScores(path, threshold) if path is not None and threshold is not None else path


def load_tokenizer(directory: Path) -> Any | None:
    """The directory's tokenizer, or None if it has none."""
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        return None
    return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)


def example_inputs(model: nn.Module, directory: Path | None = None) -> dict[str, Any]:
    """Keyword arguments to trace ``model`` with: two texts where there is a tokenizer, else what its config suggests.

    Attention masks are included, so that padded batches work after export; the key-value cache is switched off.
    """
    accepted = inspect.signature(model.forward).parameters
    tokenizer = load_tokenizer(directory) if directory is not None else None
    main = getattr(model, "main_input_name", "input_ids")
    inputs: Mapping[str, Any]
    if main == "input_ids" and tokenizer is not None:
        inputs = _texts(tokenizer)
    elif main == "input_ids":
        tokens = _dummies(model).get("input_ids", torch.ones(2, 8, dtype=torch.long))
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    elif main == "input_features":
        inputs = {main: _features(model)}
    else:
        inputs = _images(model) if main == "pixel_values" else _dummies(model)
    found = {name: value for name, value in inputs.items() if name in accepted}
    if "decoder_input_ids" in accepted:
        batch = next(iter(found.values())).shape[0]
        found["decoder_input_ids"] = torch.ones(batch, 5, dtype=torch.long)
    if "use_cache" in accepted:
        found["use_cache"] = False
    return found


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise CommandError(f"{directory} is no directory; give one that holds config.json and model.safetensors")
    if not (directory / "config.json").exists():
        raise CommandError(f"{directory} has no config.json, so it is no Hugging Face model directory")


def _texts(tokenizer: Any) -> Mapping[str, Any]:
    texts = ["The model is traced with two short texts.", "The second one is shorter."]
    padding = tokenizer.pad_token is not None
    encoded: Mapping[str, Any] = tokenizer(texts if padding else texts[:1] * 2, padding=padding, return_tensors="pt")
    return encoded


def _dummies(model: nn.Module) -> dict[str, Any]:
    return dict(getattr(model, "dummy_inputs", None) or {})


def _images(model: nn.Module) -> dict[str, Any]:
    config: Any = model.config
    size = getattr(config, "image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return {"pixel_values": torch.randn(2, getattr(config, "num_channels", 3), height, width)}


def _features(model: nn.Module) -> torch.Tensor:
    config: Any = model.config
    return torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions)
